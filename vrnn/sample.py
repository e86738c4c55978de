"""Draw from a trained model: drawings as SVG, images as PNG, sound as WAV.

python vrnn/sample.py exp/strokes/vrnn/default                         drawings of its own
python vrnn/sample.py exp/strokes/vrnn/default --prime ID              continuations of one
python vrnn/sample.py exp/digits/vrnn/default --interpolation ID,ID    from one image to another
python vrnn/sample.py exp/strokes/vrnn/default --traversal 3           what a latent dimension does
"""

from pathlib import Path

import torch
from torch import Tensor

from plateau.config import UserError, cli
from plateau.data.sequences import TRAIN, About, Sequence, SequenceSet, read_about
from plateau.io import file_name, replacing, write_text
from plateau.models.vae import Vae
from plateau.report.drawings import drawings, sound, strokes_svg
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import Experiment
from plateau.training.recipe import load_final
from vrnn.model import SequenceModel, build_model, corpus_of
from vrnn.options import Options


def find(sets: list[SequenceSet], id: str) -> Sequence:
    """A sequence by its id.

    Raises:
        UserError: there is none in these sets.
    """
    for sequences in sets:
        if id in sequences.ids:
            return sequences[sequences.ids.index(id)]
    folders = ", ".join(str(sequences.folder) for sequences in sets)
    raise UserError(f"no sequence has the id {id} in {folders}; one is {sets[0].ids[0]}")


def usual_length(sequences: SequenceSet) -> int:
    """The middle of the sequences' lengths, in steps."""
    return sorted(sequences.lengths)[len(sequences) // 2]


@torch.no_grad()
def draw(
    model: SequenceModel, sets: list[SequenceSet], num: int, steps: int, prime: str
) -> list[Tensor]:
    """Sequences (T, D) in the units of the data; with a prime, what is given comes first.

    Raises:
        UserError: there is no such prime, or the model cannot go on from one.
    """
    if not prime:
        return list(model.sample(num, steps).cpu())
    if isinstance(model.core, Vae):
        raise UserError("--prime: this model is no recurrent one: try --interpolation ID,ID")
    given = torch.from_numpy(find(sets, prime).values)
    given = given[: max(1, len(given) // 2)].to(next(model.parameters()).device)
    return list(model.continued(given, num, steps).cpu())


@torch.no_grad()
def interpolate(model: SequenceModel, sets: list[SequenceSet], ids: str, num: int) -> list[Tensor]:
    """Images (1, D) from the first of two ids, separated by a comma, to the other.

    Raises:
        UserError: not two ids, or the model is no VAE.
    """
    if not isinstance(model.core, Vae):
        raise UserError("--interpolation: this model is recurrent, which has none: try --prime ID")
    names = ids.split(",")
    if len(names) != 2:
        raise UserError(f"--interpolation {ids}: give two ids, with a comma between them")
    device = next(model.parameters()).device
    ends = (torch.from_numpy(find(sets, name).values[0]).to(device) for name in names)
    between = model.core.interpolate(*(model.norm(end) for end in ends), num)
    return list(model.denormalised(between).cpu().unsqueeze(1))


def traverse(model: SequenceModel, dim: str, num: int, steps: int, seed: int) -> list[Tensor]:
    """Sequences (T, D) with a latent dimension held at -2 to 2 deviations from its prior's mean.

    Raises:
        UserError: the model has no such dimension.
    """
    latent_dim = model.core.latent_dim
    if not latent_dim:
        raise UserError("--traversal: this model has no latents; try --prime ID")
    if not dim.isdecimal() or int(dim) >= latent_dim:
        raise UserError(f"--traversal {dim}: the latent dimensions are 0 to {latent_dim - 1}")
    held = torch.linspace(-2, 2, num).tolist()
    return list(model.traversed(int(dim), held, steps, seed).cpu())


def write(folder: Path, drawn: list[Tensor], about: About) -> None:
    """A picture of all, and a file of each where the kind has one."""
    with replacing(folder / "samples.png") as temporary:
        drawings(drawn, about).savefig(temporary, format="png", dpi=120)
    for number, values in enumerate(drawn, start=1):
        if about.kind == "strokes":
            write_text(folder / f"{number}.svg", strokes_svg(values))
        elif about.kind == "frames":
            with replacing(folder / f"{number}.wav") as temporary:
                temporary.write_bytes(sound(values, about.sampling_rate))


def main(
    exp_dir: Path,
    num: int = 8,
    steps: int = 0,
    prime: str = "",
    interpolation: str = "",
    traversal: str = "",
    seed: int = 1,
) -> None:
    """Write samples into the experiment's folder, under samples/.

    Args:
        exp_dir: the experiment's folder, trained
        num: how many
        steps: of each; 0: as many as the training sequences have in the middle
        prime: id of a sequence of the corpus, the first half of which is given
        interpolation: two ids of images, with a comma between them
        traversal: a latent dimension, from 0, which is held from -2 to 2 of its prior's standard
            deviations; all else is the same
        seed: every seed gives others, the same ones each time
    """
    if not 1 <= num <= 1000 or not 0 <= steps <= 10**6:
        raise UserError(f"--num {num} --steps {steps}: draw 1 to 1000, of at most 1000000 steps")
    if len(list(filter(None, (prime, interpolation, traversal)))) > 1:
        raise UserError("--prime, --interpolation, --traversal: give one of them")
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, Options, build_model)
    corpus = corpus_of(options)
    about = read_about(options.sequences)
    sets = [SequenceSet(corpus.root / name) for name in corpus.sets()]
    steps = steps or usual_length(SequenceSet(corpus.root / TRAIN))
    set_seed(seed)
    if interpolation:
        drawn, name = interpolate(model, sets, interpolation, num), "interpolation"
    elif traversal:
        drawn, name = traverse(model, traversal, num, steps, seed), f"dimension_{traversal}"
    else:
        drawn, name = draw(model, sets, num, steps, prime), f"after_{prime}" if prime else "drawn"
    folder = exp_dir / "samples" / file_name(name)
    write(folder, drawn, about)
    print(f"samples: {folder}")


if __name__ == "__main__":
    cli(main)
