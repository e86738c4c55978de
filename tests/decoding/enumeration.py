"""All alignments of a transducer with at most one label a frame, one by one."""

import itertools
from collections import defaultdict

import numpy as np
import torch


class Scores:
    """Log probabilities of the labels after ``tokens`` in a frame, from the whole predictor."""

    def __init__(self, model, frames, blank_penalty=0.0):
        self.model, self.frames, self.penalty = model, frames, blank_penalty
        self.known = {}

    def __call__(self, t, tokens, penalty=True):
        if (t, tokens) not in self.known:
            with torch.no_grad():
                labels = torch.tensor([tokens], dtype=torch.long)
                projected = self.model.joiner.predictor(self.model.predictor(labels)[0, -1])
                scores = self.model.joiner(self.frames[t], projected).double().numpy()
            self.known[t, tokens] = scores
        scores = self.known[t, tokens].copy()
        scores[0] -= self.penalty if penalty else 0
        return scores


def step(scores, topology, t, tokens, label):
    """Log probability of one frame of an alignment with at most one label a frame."""
    total = scores(t, tokens)[label]
    if label and topology == "constrained":
        total += scores(t, (*tokens, label), penalty=False)[0]
    return total


def enumerate_sequences(model, frames, topology, blank_penalty=0.0):
    """All token sequences: {tokens: (log probability, that of the best alignment, its frames)}."""
    scores = Scores(model, frames, blank_penalty)
    by_tokens = defaultdict(list)
    for path in itertools.product(range(model.vocab_size), repeat=len(frames)):
        tokens, total = (), 0.0
        for t, label in enumerate(path):
            total += step(scores, topology, t, tokens, label)
            tokens += (label,) if label else ()
        emitting = tuple(t for t, label in enumerate(path) if label)
        by_tokens[tokens].append((total, emitting))
    return {
        tokens: (np.logaddexp.reduce([total for total, _ in paths]), *max(paths))
        for tokens, paths in by_tokens.items()
    }


def emission_scores(model, frames, tokens, emitting):
    """Log probability of each token in its frame after those before it, by the whole predictor."""
    scores = Scores(model, frames)
    return tuple(float(scores(t, tokens[:i])[tokens[i]]) for i, t in enumerate(emitting))
