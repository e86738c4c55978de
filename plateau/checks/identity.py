"""Identity: a model must learn to say tokens that it is given in codes which leave no doubt.

If a model cannot even repeat what it is told, no amount of speech will teach it, and a part of it
is wrong: one that no gradient reaches, a loss that is not what it seems, a decoding that gives the
model other input than training does. It takes a minute, and is the first thing to try where a model
says the same few words whatever it hears.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from plateau.config import UserError
from plateau.data.loading import Batch
from plateau.data.tokens import Tokenizer
from plateau.training.interfaces import AnyBatch, LossFunction
from plateau.training.monitor import Monitor

STEPS, EVERY = 600, 20  # of training, and between two looks at what it has learnt
ENOUGH = 0.02  # of what may be wrong in the end
RATE, WARM_UP = 1e-3, 50  # learning rate, and steps over which it grows to that
SHOWN = 4  # parts of a model


def check_identity(
    model: nn.Module,
    loss_function: LossFunction,
    batches: Callable[[], AnyBatch],
    wrong: Callable[[], float],
    what: str = "wrong",
    idle: tuple[str, ...] = (),
    all_from: int = 0,
    steps: int = STEPS,
) -> int:
    """Train a model to repeat its input; it ends as soon as it does.

    Args:
        model: untrained; it is trained.
        loss_function: its loss.
        batches: makes one, always another.
        wrong: how much of what the model says is wrong, 0 to 1; or another measure that goes to 0.
        what: that measure is, in words.
        idle: names, or their beginnings, of parameters that the loss does not use.
        all_from: the step from which on it uses all others.
        steps: the most that are taken.

    Returns:
        the number of steps that it took

    Raises:
        UserError: a part of the model has no gradient; or it does not learn.
    """
    monitor = Monitor(model, idle=idle, all_from=all_from)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    for step in range(1, steps + 1):
        if step == all_from + 1:
            monitor.start_epoch(step - 1, whole=True)
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, step / WARM_UP)
        model.train()
        loss = loss_function(model, batches())
        optimizer.zero_grad(set_to_none=True)
        (loss.total / max(loss.tokens, 1)).backward()
        monitor.see_gradients(step, None)
        norms = monitor.norms()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % EVERY == 0 or step == steps:
            model.eval()
            found = wrong()
            if found <= ENOUGH and step > all_from:
                break
    if silent := monitor.finish_epoch({}):
        raise UserError(f"{silent[0]}\nafter {step} steps {found:.1%} is {what}")
    if found > ENOUGH:
        smallest = sorted(norms, key=norms.get)[:SHOWN]
        raise UserError(
            f"after {steps} steps {found:.1%} is {what}, of tokens that leave no doubt; the loss "
            f"is {loss.total.item() / max(loss.tokens, 1):.3g} nats a token\n"
            "look at the loss, and whether decoding gives the model what training does; all parts "
            f"have gradients, the smallest {', '.join(f'{p} {norms[p]:.2g}' for p in smallest)}"
        )
    return step


def coded_batch(
    words: Sequence[str],
    tokenizer: Tokenizer,
    codes: torch.Tensor,
    frames: int,
    generator: torch.Generator,
    size: int = 8,
) -> Batch:
    """Texts of one to three of these words, whose tokens are said in codes.

    A token lasts for ``2 * frames`` frames, and ``frames`` of silence, zeros, come before it and
    at the end.

    Args:
        words: with one token or more each.
        tokenizer: of the model.
        codes: (V, F), that of each token.
        frames: of the features, for one of the encoder.
        generator: of the draws.
        size: N.
    """

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    texts = [" ".join(words[draw(len(words))] for _ in range(1 + draw(3))) for _ in range(size)]
    spoken = []
    for text in texts:
        tokens = torch.tensor(tokenizer.encode(text))
        said = codes[tokens].repeat_interleave(2 * frames, 0).view(len(tokens), 2 * frames, -1)
        said = nn.functional.pad(said, (0, 0, frames, 0)).flatten(0, 1)  # (U · 3 · frames, F)
        spoken.append(nn.functional.pad(said, (0, 0, 0, frames)))
    order = sorted(range(size), key=lambda n: -len(spoken[n]))  # longest first
    return Batch(
        nn.utils.rnn.pad_sequence([spoken[n] for n in order], batch_first=True),
        torch.tensor([len(spoken[n]) for n in order]),
        [texts[n] for n in order],
        [f"coded-{n}" for n in order],
        seconds=0.0,
    )


def make_codes(vocab: int, num_features: int, generator: torch.Generator) -> torch.Tensor:
    """A code for each token (V, F): one-hot, or of random signs where there are more tokens."""
    if vocab <= num_features:
        return num_features**0.5 * torch.eye(num_features)[:vocab]  # of length √F, as signs have
    return torch.randint(2, (vocab, num_features), generator=generator) * 2.0 - 1
