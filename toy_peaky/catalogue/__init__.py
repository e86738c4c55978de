"""The experiments, in the order of the story."""

from toy_peaky.catalogue import bias, counts, graphs, lengths, losses, memory, networks, questions
from toy_peaky.experiment import Section

SECTIONS: tuple[Section, ...] = (
    graphs.SECTION,
    counts.SECTION,
    bias.SECTION,
    networks.SECTION,
    memory.SECTION,
    losses.VITERBI,
    lengths.SECTION,
    losses.PRIOR,
    losses.MODIFIERS,
    questions.SECTION,
)
