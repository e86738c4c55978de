"""The inner loops of the native engine, compiled by numba when they are first called.

Sums over paths of many frames are smaller than any float, so they are kept with a scale of their
own for each frame: `_scaled`. What then still is too small beside the largest sum of its frame is
lost, and may matter later, where all that was large leads nowhere. `_scaled` says how much that can
be at most, and where it is not nothing, `_exact` computes the same with an exponent for each sum.

α are sums over the beginnings of paths, β over their endings, γ the shares of all paths (Baum et
al. 1970). Arrays of a batch are one after the other, see `Layout`. All is double inside; every
utterance is computed by one thread, in the same order always.
"""

import math

import numba
import numpy as np

LOG2 = math.log(2.0)
# exp(x) for |x| ≤ log(2) / 2 by Taylor's series, whose next term is below 1e-17.
F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13 = (1 / math.factorial(n) for n in range(2, 14))
# `_scaled` adds this to each sum. Products that are too small for a double, with fewer than a
# million arcs to a state and moderate weights, are less.
FLOOR = 2.0**-960
LOST = 1e-15  # share of the whole that may be lost
ZERO = -1e290  # exponent of what is zero: below that of any sum of scores; twice it is no infinity
NOTHING = -1e200  # whatever has a smaller exponent has a zero in it
# `_exact` brings mantissas back into [1, 2) after so many frames. From one to the next they grow by
# the number of a state's arcs, and shrink by less than 4.
KEPT = 16


def compiled(function):
    """Compile a function at its first call; it is kept beside this file, or in ~/.cache."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither place can be written
        return numba.njit(**options)(function)


@compiled
def _power(exponent):
    """2^exponent, of a whole number; 0 where that is very small."""
    if exponent < -1022.0:
        return 0.0
    exponent = min(exponent, 1000.0)  # more comes of exponents that no double has exactly
    return np.int64(np.int64(exponent + 1023.0) << 52).view(np.float64)


@compiled
def _exp(rest):
    """exp of what is between -log(2) / 2 and log(2) / 2. LLVM makes vectors of this."""
    p = (((F13 * rest + F12) * rest + F11) * rest + F10) * rest + F9
    p = (((p * rest + F8) * rest + F7) * rest + F6) * rest + F5
    return ((((p * rest + F4) * rest + F3) * rest + F2) * rest + 1.0) * rest + 1.0


@compiled
def _read(row, labels, begins, gain, out):
    """The score of each column at a frame, and the largest; NaN if any is."""
    largest, fine = -np.inf, True
    for c in range(len(labels)):
        score = float(row[labels[c]]) + gain * begins[c]
        out[c] = score
        largest = score if score > largest else largest
        fine &= score == score
    return largest if fine else np.nan


@compiled
def _scaled(scores, gain, graph, weights, end_weights, gamma, arc_gamma, end_gamma):
    """The log of the sum over all paths, and which share of the sum is lost at most.

    Args:
        scores: (T, V).
        gain: nats that a beginning is worth for each frame earlier.
        graph: of `_part`.
        weights: (A,), no logarithms.
        end_weights: (E,).
        gamma: (T, C), is filled with γ.
        arc_gamma: (A,), to which the sum of γ over all frames is added; or without room.
        end_gamma: (E,), the same.
    """
    labels, begins, into, arcs_in, out_of, sources, targets, columns, end_sources = graph
    num_frames, num_states, num_columns = len(scores), len(out_of) - 1, len(labels)
    with_arcs = len(arc_gamma) > 0
    weights_in, sources_in, columns_in = weights[arcs_in], sources[arcs_in], columns[arcs_in]
    e = np.empty((num_frames, num_columns))
    # After t frames α is a[t] · exp(scale[t]); FLOOR was added to it as FLOOR · exp(floor[t]).
    a = np.zeros((num_frames + 1, num_states))
    scale, floor = np.zeros(num_frames + 1), np.zeros(num_frames + 1)
    a[0, 0] = 1.0
    for t in range(num_frames):
        before, now, likelihoods = a[t], a[t + 1], e[t]
        peak = _read(scores[t], labels, begins, gain * ((num_frames - 1) / 2 - t), likelihoods)
        peak = 0.0 if peak == -np.inf else peak
        for c in range(num_columns):
            x = (likelihoods[c] - peak) * (1 / LOG2)
            x = x if x > -1022.0 else -1023.0  # 0, then
            exponent = np.floor(x + 0.5)
            power = np.int64(np.int64(exponent + 1023.0) << 52).view(np.float64)
            likelihoods[c] = _exp((x - exponent) * LOG2) * power
        highest = 0.0
        for s in range(num_states):
            total = FLOOR
            for i in range(into[s], into[s + 1]):
                total += before[sources_in[i]] * (weights_in[i] * likelihoods[columns_in[i]])
            now[s] = total
            highest = total if total > highest else highest
        for s in range(num_states):
            now[s] *= 1 / highest
        floor[t + 1] = scale[t] + peak
        scale[t + 1] = scale[t] + peak + math.log(highest)

    b, after = np.zeros(num_states), np.empty(num_states)  # β is b · exp(b_scale)
    whole = 0.0
    for i in range(len(end_sources)):
        b[end_sources[i]] += end_weights[i]
        whole += a[num_frames, end_sources[i]] * end_weights[i]
    for i in range(len(end_sources)):
        end_gamma[i] += a[num_frames, end_sources[i]] * end_weights[i] / whole
    log_sum = math.log(whole) + scale[num_frames]
    b_scale = math.log(np.max(b))
    b /= np.max(b)
    lost = 0.0
    shares = np.empty(num_columns)
    for t in range(num_frames - 1, -1, -1):
        now, likelihoods = a[t], e[t]
        factor = math.exp(floor[t + 1] + b_scale - log_sum)
        # FLOOR is added on this scale to each α after the frame, and below to each β before it. All
        # that it is multiplied by, α or β of the same state, is at most 1.
        lost += 2 * num_states * FLOOR * factor
        shares[:] = 0.0
        highest = 0.0
        for s in range(num_states):
            total, to_shares = FLOOR, now[s] * factor
            for arc in range(out_of[s], out_of[s + 1]):
                product = weights[arc] * likelihoods[columns[arc]] * b[targets[arc]]
                total += product
                shares[columns[arc]] += to_shares * product
                if with_arcs:
                    arc_gamma[arc] += to_shares * product
            after[s] = total
            highest = total if total > highest else highest
        for s in range(num_states):
            after[s] *= 1 / highest
        b_scale += floor[t + 1] - scale[t] + math.log(highest)
        b, after = after, b
        for c in range(num_columns):
            gamma[t, c] = shares[c]
    return log_sum, lost


@compiled
def _exact(scores, gain, graph, weights, end_weights, gamma, arc_gamma, end_gamma):
    """As `_scaled`, where nothing is lost; -inf, and no shares, without a path. NaN of NaN.

    A number is mantissa · 2^exponent, with a whole number in a double for exponent.
    """
    labels, begins, into, arcs_in, out_of, sources, targets, columns, end_sources = graph
    num_frames, num_states, num_columns = len(scores), len(out_of) - 1, len(labels)
    with_arcs = len(arc_gamma) > 0
    if num_states == 0:
        gamma[:] = 0.0
        return -np.inf
    w, we = np.empty(len(weights)), np.empty(len(weights))
    _split(weights, w, we)
    ends, end_exponents = np.empty(len(end_weights)), np.empty(len(end_weights))
    _split(end_weights, ends, end_exponents)
    e, ee = np.empty((num_frames, num_columns)), np.empty((num_frames, num_columns))
    a, ae = np.ones((num_frames + 1, num_states)), np.full((num_frames + 1, num_states), ZERO)
    ae[0, 0] = 0.0
    fine = True
    for t in range(num_frames):
        peak = _read(scores[t], labels, begins, gain * ((num_frames - 1) / 2 - t), e[t])
        fine &= peak == peak
        _split(e[t], e[t], ee[t])
        for s in range(num_states):
            top, total = ZERO, 0.0
            for i in range(into[s], into[s + 1]):
                arc = arcs_in[i]
                exponent = ae[t, sources[arc]] + we[arc] + ee[t, columns[arc]]
                top = exponent if exponent > top else top
            for i in range(into[s], into[s + 1]):
                arc = arcs_in[i]
                exponent = ae[t, sources[arc]] + we[arc] + ee[t, columns[arc]]
                product = a[t, sources[arc]] * w[arc] * e[t, columns[arc]]
                total += product * _power(exponent - top)
            a[t + 1, s], ae[t + 1, s] = total, top
        if t % KEPT == 0:
            _tidy(a[t + 1], ae[t + 1])

    b, be = np.zeros(num_states), np.full(num_states, ZERO)
    top, whole = ZERO, 0.0  # all paths: whole · 2^top
    for i in range(len(end_sources)):
        s = end_sources[i]
        be[s] = max(be[s], end_exponents[i])
        top = max(top, ae[num_frames, s] + end_exponents[i])
    for i in range(len(end_sources)):
        s = end_sources[i]
        b[s] += ends[i] * _power(end_exponents[i] - be[s])
        whole += a[num_frames, s] * ends[i] * _power(ae[num_frames, s] + end_exponents[i] - top)
    if not fine or top < NOTHING:
        gamma[:] = 0.0 if fine else np.nan
        return -np.inf if fine else np.nan
    for i in range(len(end_sources)):
        s = end_sources[i]
        share = _power(ae[num_frames, s] + end_exponents[i] - top)
        end_gamma[i] += a[num_frames, s] * ends[i] * share / whole
    after, after_exponents = np.empty(num_states), np.empty(num_states)
    shares = np.empty(num_columns)
    for t in range(num_frames - 1, -1, -1):
        shares[:] = 0.0
        for s in range(num_states):
            highest, total = ZERO, 0.0
            for arc in range(out_of[s], out_of[s + 1]):
                exponent = be[targets[arc]] + we[arc] + ee[t, columns[arc]]
                highest = exponent if exponent > highest else highest
            to_shares = a[t, s] * _power(ae[t, s] + highest - top) / whole
            for arc in range(out_of[s], out_of[s + 1]):
                exponent = be[targets[arc]] + we[arc] + ee[t, columns[arc]]
                product = b[targets[arc]] * w[arc] * e[t, columns[arc]]
                product *= _power(exponent - highest)
                total += product
                shares[columns[arc]] += to_shares * product
                if with_arcs:
                    arc_gamma[arc] += to_shares * product
            after[s], after_exponents[s] = total, highest
        if t % KEPT == 0:
            _tidy(after, after_exponents)
        b, after = after, b
        be, after_exponents = after_exponents, be
        for c in range(num_columns):
            gamma[t, c] = shares[c]
    return math.log(whole) + top * LOG2


@compiled
def _split(logs, mantissas, exponents):
    """exp of logarithms, as mantissas and exponents."""
    for i in range(len(logs)):
        x = logs[i] * (1 / LOG2)
        x = x if x > ZERO else ZERO
        exponents[i] = np.floor(x + 0.5)
        mantissas[i] = _exp((x - exponents[i]) * LOG2)


@compiled
def _tidy(mantissas, exponents):
    """Bring mantissas into [1, 2); 0 stays."""
    for s in range(len(mantissas)):
        if mantissas[s] > 0:
            fraction, exponent = math.frexp(mantissas[s])
            mantissas[s] = 2 * fraction
            exponents[s] += exponent - 1


@compiled
def _part(n, layout):
    """Graph n of a layout, and where its arcs and those that end are."""
    states = slice(layout.state_splits[n], layout.state_splits[n + 1] + 1)
    cols = slice(layout.column_splits[n], layout.column_splits[n + 1])
    ends = slice(layout.end_splits[n], layout.end_splits[n + 1])
    first = layout.out_of[states.start]
    arcs = slice(first, layout.out_of[states.stop - 1])
    graph = (
        layout.labels[cols],
        layout.begins[cols],
        (layout.into[states] - first).astype(np.uint32),
        (layout.arcs_in[arcs] - first).astype(np.uint32),
        (layout.out_of[states] - first).astype(np.uint32),
        layout.sources[arcs],
        layout.targets[arcs],
        layout.columns[arcs],
        layout.end_sources[ends],
    )
    return graph, arcs, ends


@compiled
def scaled_sums(which, layout, scores, lengths, gain, gamma, arc_gamma, end_gamma, sums):
    """`_scaled` for some utterances; the sum is NaN where too much is lost.

    Args:
        which: the utterances.
        layout: of N graphs.
        scores: (N, T, V).
        lengths: (N,).
        gain: see `_scaled`.
        gamma: (N, T, C), with C the most columns of a graph; filled.
        arc_gamma: (A,) or (0,), filled.
        end_gamma: (E,), filled.
        sums: (N,), filled.
    """
    for n in which:
        graph, arcs, ends = _part(n, layout)
        frames, columns = lengths[n], len(graph[0])
        of_arcs = arc_gamma[arcs] if len(arc_gamma) else arc_gamma
        weights, end_weights = layout.weights[arcs], layout.end_weights[ends]
        sums[n] = np.nan
        if layout.moderate[n]:
            log_sum, lost = _scaled(
                scores[n, :frames], gain, graph, np.exp(weights), np.exp(end_weights),
                gamma[n, :frames, :columns], of_arcs, end_gamma[ends],
            )  # fmt: skip
            if lost <= LOST:
                sums[n] = log_sum


@compiled
def exact_sums(which, layout, scores, lengths, gain, gamma, arc_gamma, end_gamma, sums):
    """`_exact` for some utterances; arguments are those of `scaled_sums`."""
    for n in which:
        graph, arcs, ends = _part(n, layout)
        frames, columns = lengths[n], len(graph[0])
        of_arcs = arc_gamma[arcs] if len(arc_gamma) else arc_gamma
        of_arcs[:] = 0.0
        end_gamma[ends] = 0.0
        sums[n] = _exact(
            scores[n, :frames], gain, graph, layout.weights[arcs], layout.end_weights[ends],
            gamma[n, :frames, :columns], of_arcs, end_gamma[ends],
        )  # fmt: skip


@compiled
def spread(which, layout, gamma, lengths, factors, gradient):
    """Add γ times a factor for each utterance (N,) to the gradient (N, T, V) of the scores."""
    for n in which:
        first = layout.column_splits[n]
        for t in range(lengths[n]):
            for c in range(layout.column_splits[n + 1] - first):
                gradient[n, t, layout.labels[first + c]] += factors[n] * gamma[n, t, c]


@compiled
def best_paths(which, layout, scores, lengths, gain, beam, paths, ends):
    """The best path of each utterance (Viterbi): its arcs, and the one that ends it.

    Args:
        which: the utterances.
        layout: of N graphs, or of one that all share.
        scores: (N, T, V).
        lengths: (N,).
        gain: see `_scaled`.
        beam: states further below the best of a frame are dropped, nats.
        paths: (N, T), filled with arcs.
        ends: (N,), filled with the number of an arc that ends; -1 where no path fits.
    """
    shared = len(layout.state_splits) == 2
    for n in which:
        graph, arcs, end_arcs = _part(0 if shared else n, layout)
        labels, begins, _, _, out_of, _, targets, columns, end_sources = graph
        weights, end_weights = layout.weights[arcs], layout.end_weights[end_arcs]
        num_states, num_frames = len(out_of) - 1, lengths[n]
        ends[n] = -1
        if num_states == 0:
            continue
        read = np.empty(len(labels))
        # Of the states that were reached: their scores, and the step that led there last. A step
        # is an arc after another step.
        now, following = np.full(num_states, -np.inf), np.full(num_states, -np.inf)
        step_of = np.empty(num_states, np.int64)
        arc_to, step_to = np.empty(num_states, np.int64), np.empty(num_states, np.int64)
        reached, next_reached = np.empty(num_states, np.int64), np.empty(num_states, np.int64)
        size, steps = 1, 0
        reached[0], now[0], step_of[0] = 0, 0.0, -1
        step_arc, step_before = np.empty(1024, np.int64), np.empty(1024, np.int64)
        for t in range(num_frames):
            _read(scores[n, t], labels, begins, gain * ((num_frames - 1) / 2 - t), read)
            limit = -np.inf
            for i in range(size):
                limit = max(limit, now[reached[i]])
            limit -= beam
            next_size = 0
            for i in range(size):
                s = reached[i]
                score = now[s]
                now[s] = -np.inf
                if score < limit:
                    continue
                for arc in range(out_of[s], out_of[s + 1]):
                    target, total = targets[arc], score + weights[arc] + read[columns[arc]]
                    known = following[target]
                    # Of equal ones the last arc, which comes from the later state, is taken.
                    if total > known or (total == known > -np.inf and arc > arc_to[target]):
                        if following[target] == -np.inf:
                            next_reached[next_size] = target
                            next_size += 1
                        following[target] = total
                        arc_to[target], step_to[target] = arc, step_of[s]
            if steps + next_size > len(step_arc):
                more = np.empty(max(steps, next_size), np.int64)
                step_arc = np.concatenate((step_arc[:steps], more, more))
                step_before = np.concatenate((step_before[:steps], more, more))
            for i in range(next_size):
                target = next_reached[i]
                step_arc[steps], step_before[steps] = arc_to[target], step_to[target]
                step_of[target] = steps
                steps += 1
            now, following = following, now
            reached, next_reached = next_reached, reached
            size = next_size
        best, step = -np.inf, -1
        for i in range(len(end_sources)):
            score = now[end_sources[i]] + end_weights[i]
            if score >= best and score > -np.inf:
                best, step, ends[n] = score, step_of[end_sources[i]], end_arcs.start + i
        for t in range(num_frames - 1, -1, -1):
            if step < 0:
                break
            paths[n, t] = arcs.start + step_arc[step]
            step = step_before[step]
