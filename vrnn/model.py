"""The model as the recipe uses it: data in their own units in, terms of the bound out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plateau.data.corpus import Corpus
from plateau.data.sequences import read_about, read_statistics, sequence_corpus
from plateau.models.latent import LatentModel, Terms
from plateau.models.normalise import GlobalNorm
from plateau.models.vae import Vae
from plateau.models.vrnn import Vrnn
from vrnn.options import Options

DENSITIES = ("gaussian", "mixture", "strokes")  # the other outputs are probabilities


class SequenceModel(nn.Module):
    """A latent-variable model of values that are normalised first.

    Densities are of normalised values; those of the data's own are smaller by `log_scale` nats a
    step, which all figures that are reported have.

    Args:
        core: the model.
        dim: D.
    """

    def __init__(self, core: LatentModel, dim: int) -> None:
        super().__init__()
        # The deviation of waveforms may be small, and `log_scale` has it as it is.
        self.norm = GlobalNorm(dim, min_std=0.0)
        self.core = core
        # Steps of training; the weight of the KL changes with it, and it is in the checkpoint.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Terms:
        """The terms of the bound of values (N, T, D), of which ``lengths`` (N,) steps count.

        See `LatentModel` for the noise.
        """
        return self.core(self.norm(values), lengths, noise)

    @property
    def log_scale(self) -> Tensor:
        """The log of what a step's volume shrinks by when it is normalised, in nats."""
        return self.norm.std.log().sum()

    def denormalised(self, values: Tensor) -> Tensor:
        """Values (…, D) that the model made, in the units of the data."""
        return values * self.norm.std + self.norm.mean

    def sample(self, num: int, steps: int, prime: Tensor | None = None) -> Tensor:
        """Sequences (num, steps, D) in the units of the data, in continuation of prime (T, D)."""
        if isinstance(self.core, Vae):
            return self.denormalised(self.core.sample(num, steps))
        prime = None if prime is None else self.norm(prime)
        return self.denormalised(self.core.sample(num, steps, prime))

    @torch.no_grad()
    def traversed(self, dim: int, held: Sequence[float], steps: int, seed: int) -> Tensor:
        """What a latent dimension does: sequences in which it is held, (len(held), steps, D).

        It is held in all steps. The random numbers of the other latents and of the output are the
        same in all sequences. A VAE's images have no such numbers: all else is at its mean.

        Args:
            dim: of the latents, from 0.
            held: where it is held, in standard deviations from its prior's mean.
            steps: of each sequence.
            seed: of the random numbers.
        """
        if isinstance(self.core, Vae) and steps == 1:
            latents = self.norm.mean.new_zeros(len(held), 1, self.core.latent_dim)
            latents[:, 0, dim] = torch.tensor(held)
            return self.denormalised(self.core.output.mean(self.core.decode(latents)))
        drawn = []
        for value in held:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                drawn.append(self.core.sample(1, steps, held=(dim, value)))
        return self.denormalised(torch.cat(drawn))

    def continued(self, given: Tensor, num: int, steps: int) -> Tensor:
        """``given`` (T, D) and what the model draws after it, (num, T + steps, D)."""
        drawn = self.sample(num, steps, given)
        return torch.cat([given.to(drawn).expand(num, *given.shape), drawn], dim=1)

    @torch.no_grad()
    def reconstructed(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Values (N, T, D) again, each step's mean given the means of the latents' posteriors.

        In a recurrent model these have the true steps before.
        """
        noise = values.new_zeros(*values.shape[:2], self.core.latent_dim)
        hidden = self.core(self.norm(values), lengths, noise).hidden
        return self.denormalised(self.core.output.mean(hidden))


def corpus_of(options: Options) -> Corpus:
    """The corpus that the options name."""
    return sequence_corpus(options.sequences, options.dev_set, options.test_sets)


def build_model(options: Options) -> SequenceModel:
    """The untrained model."""
    about = read_about(options.sequences)
    mean, std = read_statistics(options.sequences)
    dim, is_vae = len(mean), options.model == "vae"
    core = Vae(dim, options.vae, about.shape) if is_vae else Vrnn(dim, options.vrnn)
    model = SequenceModel(core, dim)
    if options.output.kind in DENSITIES:
        model.norm.set_statistics(mean, std)
    return model
