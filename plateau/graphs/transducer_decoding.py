"""Decoding graphs for transducers, and k2's beam search on them.

The search is that of Kuang et al. 2022 ("Fast and parallel decoding for transducer",
arXiv:2211.00484). A frame reads one arc of the graph, whose label it emits, or blank.
"""

import math
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import k2
import numpy as np
import torch
from torch import Tensor

from plateau.config import UserError
from plateau.ngram import END, START, read_arpa
from plateau.text import is_reserved, missing_words

# Log probabilities (n, V) of a frame: from its number t, the utterances (n,) and the last labels
# (n, context).
FrameScores = Callable[[int, Tensor, Tensor], Tensor]
IMPOSSIBLE = -1e30  # a log probability; k2 would make NaN of infinity
Sentence = tuple[tuple[int, ...], tuple[int, ...], float]  # tokens, their frames, score


def trivial_graph(vocab_size: int, device: torch.device | str = "cpu") -> k2.Fsa:
    """One graph that accepts any sequence of the labels 1 … vocab_size - 1."""
    return k2.trivial_graph(vocab_size - 1, device=device)


def lg_graph(
    lexicon: Mapping[str, Sequence[int]], arpa: Path, vocab_size: int, lm_scale: float = 1.0
) -> k2.Fsa:
    """One graph of the token sequences that spell words, weighted by a language model: L ∘ G.

    Mohri, Pereira, Riley 2002, "Weighted finite-state transducers in speech recognition". As usual,
    an n-gram of the model has the path through its back-off too, and that can be the better one.
    Words that only one of lexicon and model knows are left out; of the lexicon's that is printed.

    Args:
        lexicon: the tokens of each word, at least one, without blank.
        arpa: n-gram language model, a file in ARPA format.
        vocab_size: V, number of labels with the blank.
        lm_scale: what log probabilities of the model are multiplied by.

    Returns:
        the graph without epsilons; its ``aux_labels`` are the words of an arc, counted from 1 in
        the order of the lexicon.

    Raises:
        UserError: the file is missing or not in ARPA format, or has no word of the lexicon; the
            lexicon has a word without tokens or with a reserved name.
    """
    for word, tokens in lexicon.items():
        if not tokens or not all(0 < token < vocab_size for token in tokens):
            raise UserError(
                f"lexicon: the tokens of '{word}' are {list(tokens)}; give at least one, each "
                f"from 1 to {vocab_size - 1}"
            )
        if is_reserved(word) or len(word.split()) != 1:
            raise UserError(f"lexicon: '{word}' cannot be a word; take it out")
    lines, known = read_arpa(Path(arpa))
    if note := missing_words(dict.fromkeys(lexicon, 1), known, str(arpa), "the lexicon"):
        print(f"note: {note}")
    backoff = len(lexicon) + 1
    grammar = _grammar(Path(arpa), lines, [*lexicon, "#0", START, END])
    grammar.scores *= lm_scale
    graph = k2.connect(k2.compose(_lexicon_fst(lexicon, vocab_size, backoff), grammar))
    graph = k2.connect(k2.determinize(graph))
    if isinstance(graph.aux_labels, Tensor):  # k2 leaves what is deterministic as it is
        graph.aux_labels = k2.RaggedTensor(graph.aux_labels.unsqueeze(1))
    # The marks that made it deterministic have done their work.
    labels = graph.labels.clone()
    labels[labels >= vocab_size] = 0
    graph.labels = labels
    words = graph.aux_labels.values  # int32, shared with the graph
    words[words >= backoff] = 0
    graph = k2.connect(k2.remove_epsilon(graph))
    graph.aux_labels = graph.aux_labels.remove_values_eq(0)
    return k2.arc_sort(graph)


def _grammar(path: Path, lines: Sequence[str], words: Sequence[str]) -> k2.Fsa:
    """G of an ARPA file's lines, with ``words`` from 1; back-off arcs have the word ``#0``."""
    with tempfile.TemporaryDirectory() as folder:
        arpa, symbols = Path(folder, "arpa"), Path(folder, "words.txt")
        arpa.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        table = "<eps> 0\n" + "".join(f"{w} {i}\n" for i, w in enumerate(words, start=1))
        symbols.write_text(table, encoding="utf-8")
        # In a process of its own: kaldilm ends the process at what is no ARPA.
        command = [sys.executable, "-m", "kaldilm", "--disambig-symbol=#0"]
        result = subprocess.run(
            [*command, f"--read-symbol-table={symbols}", str(arpa)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    if result.returncode != 0:
        reasons = [line for line in result.stderr.splitlines() if line.startswith("[E]")]
        reason = reasons[0] if reasons else result.stderr.strip()[-200:]
        raise UserError(f"{path}: kaldilm cannot read it as an ARPA file: {reason}")
    grammar = k2.Fsa.from_openfst(result.stdout, acceptor=False)
    del grammar.aux_labels  # the same as its labels
    return k2.arc_sort(grammar)


def _lexicon_fst(lexicon: Mapping[str, Sequence[int]], vocab_size: int, backoff: int) -> k2.Fsa:
    """L, from tokens to words; disambiguation labels follow the tokens, from vocab_size on.

    The first of them is for the back-off. Another ends every word whose tokens are those of an
    earlier word or begin another word, so that L ∘ G can be determinised.
    """
    prefixes = {tuple(t[:i]) for t in lexicon.values() for i in range(1, len(t))}
    counts = Counter(map(tuple, lexicon.values()))
    seen: Counter[tuple[int, ...]] = Counter()
    arcs = [(0, 0, vocab_size, backoff)]
    states = 1
    for word, tokens in enumerate(map(tuple, lexicon.values()), start=1):
        labels = list(tokens)
        if counts[tokens] > 1 or tokens in prefixes:
            seen[tokens] += 1
            labels.append(vocab_size + seen[tokens])
        inner = list(range(states, states + len(labels) - 1))
        states += len(inner)
        for i, (source, target) in enumerate(zip([0, *inner], [*inner, 0], strict=True)):
            arcs.append((source, target, labels[i], word if i == 0 else 0))
    arcs.append((0, states, -1, -1))
    lines = [" ".join(map(str, (*arc, 0.0))) for arc in sorted(arcs)]
    return k2.arc_sort(k2.Fsa.from_str("\n".join([*lines, str(states)]), acceptor=False))


def search_lattice(
    score: FrameScores,
    graph: k2.Fsa,
    lengths: Sequence[int],
    vocab_size: int,
    context: int,
    beam: float,
    max_states: int,
    max_contexts: int,
) -> k2.Fsa:
    """Lattices of all paths that the search has not pruned, one for each utterance.

    After one arc for each frame, a path has one for the end, with the graph's weight for it.

    Args:
        score: gives the log probabilities of a frame.
        graph: the labels that may be said, without epsilons.
        lengths: frames of the N utterances.
        vocab_size: V.
        context: number of labels that log probabilities depend on.
        beam: nats below the best state of a frame at which states are dropped.
        max_states: states of an utterance kept in a frame.
        max_contexts: contexts of an utterance kept in a frame.
    """
    # k2 gives the last frame to the arcs into the final state, and takes neither the frame's nor
    # these arcs' scores. Before, such arcs compete with all others in each frame. So a label of its
    # own, ``end``, is said in a frame after the last one, and a further frame is what k2 wants.
    end = vocab_size
    config = k2.RnntDecodingConfig(
        vocab_size=vocab_size + 1,
        decoder_history_len=context,
        beam=beam,
        max_contexts=max_contexts,
        max_states=max_states,
    )
    ended_graph = _with_end(graph, end)
    streams = k2.RnntDecodingStreams([k2.RnntDecodingStream(ended_graph) for _ in lengths], config)
    num_frames = torch.tensor(lengths, device=graph.device)
    for t in range(max(lengths) + 2):
        shape, contexts = streams.get_contexts()
        utterances = shape.row_ids(1).long()  # (n,)
        over = t - num_frames[utterances]
        log_probs = torch.full((len(over), end + 1), IMPOSSIBLE, device=graph.device)
        speaks = over < 0
        if speaks.any():
            log_probs[speaks, :end] = score(t, utterances[speaks], contexts[speaks].long())
        log_probs[over == 0, end] = 0.0
        log_probs[over > 0, 0] = 0.0
        streams.advance(log_probs)
    streams.terminate_and_flush_to_streams()
    lattice = streams.format_output([length + 2 for length in lengths])
    lattice.labels = lattice.labels.masked_fill(lattice.labels == end, 0)
    return k2.connect(lattice)


def _with_end(graph: k2.Fsa, end: int) -> k2.Fsa:
    """The graph with the label ``end`` where it ended before, without attributes."""
    arcs = graph.arcs.values().clone()  # (A, 4): source, target, label, score
    arcs[:, 2].masked_fill_(arcs[:, 2] == -1, end)
    final = int(arcs[:, 1].max())
    last = torch.tensor([[final, final + 1, -1, 0]], dtype=arcs.dtype, device=arcs.device)
    return k2.Fsa(torch.cat([arcs, last]))


def lattice_nbest(lattice: k2.Fsa, nbest: int) -> list[list[Sentence]]:
    """The label sequences with the largest sums over paths, for each lattice of `search_lattice`.

    Frame by frame, the prefixes that most of the lattice's probability goes through are kept: four
    times ``nbest``, and at least 16.

    Returns:
        per utterance at most ``nbest`` tuples of tokens, the frames of their best path, and the log
        of the sum, best first; none where the lattice has no path.
    """
    to_end = lattice.get_backward_scores(use_double_scores=True, log_semiring=True).cpu().numpy()
    states = lattice.arcs.row_splits(1).tolist()
    arc_splits = lattice.arcs.row_splits(2).cpu().numpy()
    arcs = lattice.arcs.values()[:, 1:3].cpu().numpy()  # (A, 2): target state, label
    scores = lattice.scores.double().cpu().numpy()  # (A,)
    results = []
    for begin, end in pairwise(states):
        if end - begin < 2:
            results.append([])
            continue
        splits = arc_splits[begin : end + 1]
        results.append(_sums(splits, arcs, scores, to_end[begin:end], nbest))
    return results


def _sums(
    splits: np.ndarray, arcs: np.ndarray, scores: np.ndarray, to_end: np.ndarray, nbest: int
) -> list[Sentence]:
    """`lattice_nbest` of one lattice; ``splits`` bound the arcs of each state, 0 is the first."""
    final = len(to_end) - 1
    # By tokens: for each state the log of the sum over paths, and score and frames of the best one.
    prefixes: dict[tuple[int, ...], dict[int, tuple[float, float, tuple[int, ...]]]]
    prefixes = {(): {0: (0.0, 0.0, ())}}
    t = 0
    while any(final not in ends for ends in prefixes.values()):
        ways = defaultdict(lambda: defaultdict(list))
        for tokens, ends in prefixes.items():
            for state, (total, best, frames) in ends.items():
                arc = slice(splits[state], splits[state + 1])
                for (target, label), score in zip(
                    arcs[arc].tolist(), scores[arc].tolist(), strict=True
                ):
                    said, when = ((*tokens, label), (*frames, t)) if label > 0 else (tokens, frames)
                    ways[said][target].append((total + score, best + score, when))
        merged = {
            tokens: {target: _merge(paths) for target, paths in targets.items()}
            for tokens, targets in ways.items()
        }
        through = {
            tokens: np.logaddexp.reduce([end[0] + to_end[state] for state, end in ends.items()])
            for tokens, ends in merged.items()
        }
        kept = sorted(through, key=through.__getitem__, reverse=True)[: max(16, 4 * nbest)]
        prefixes = {tokens: merged[tokens] for tokens in kept}
        t += 1
    found = [(tokens, *ends[final]) for tokens, ends in prefixes.items()]
    found.sort(key=lambda path: path[1], reverse=True)
    return [(tokens, frames, total) for tokens, total, _, frames in found[:nbest]]


def _merge(
    paths: list[tuple[float, float, tuple[int, ...]]],
) -> tuple[float, float, tuple[int, ...]]:
    if len(paths) == 1:
        return paths[0]
    largest = max(total for total, _, _ in paths)
    total = largest + math.log(sum(math.exp(total - largest) for total, _, _ in paths))
    _, best, frames = max(paths, key=lambda path: path[1])
    return total, best, frames
