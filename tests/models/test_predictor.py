import pytest
import torch
import torch.nn.functional as F

from plateau.models.predictor import PredictorOptions, build_predictor

V, P = 7, 6
TOKENS = torch.tensor([[1, 2, 3, 3], [6, 6, 1, 5], [4, 1, 2, 6]])

KINDS = {
    "one label": {"context": 1},
    "two labels": {"context": 2},
    "lstm": {"kind": "lstm"},
    "lstm with zoneout": {"kind": "lstm", "zoneout": 0.3},
}
every = pytest.mark.parametrize("kind", KINDS)


def make(kind, dropout=0.0):
    torch.manual_seed(0)
    options = PredictorOptions(dim=P, dropout=dropout, **KINDS[kind])
    return build_predictor(V, options).double().eval()


def stepped(predictor, tokens):
    """The outputs (N, U + 1, P) that decoding sees."""
    state = predictor.start(len(tokens))
    outputs = [predictor.output(state)]
    for labels in tokens.T:
        state = predictor.advance(state, labels)
        outputs.append(predictor.output(state))
    return torch.stack(outputs, dim=1)


@every
def test_step_by_step_is_all_at_once(kind):
    predictor = make(kind, dropout=0.5)
    expected = predictor(TOKENS)
    assert expected.shape == (3, 5, P) and predictor.output_dim == P
    torch.testing.assert_close(stepped(predictor, TOKENS), expected)
    assert (expected[0] - expected[1]).abs().max() > 0.1  # the labels matter


@every
def test_states_are_of_hypotheses(kind):
    """Beam search picks and mixes them: a state's first dimension is the hypotheses."""
    predictor = make(kind)
    state = predictor.start(3)
    assert isinstance(state, tuple)
    for labels in TOKENS[:, :2].T:
        state = predictor.advance(state, labels)
    order = torch.tensor([2, 0, 2])
    state = tuple(part[order] for part in state)
    state = predictor.advance(state, torch.tensor([1, 2, 5]))
    for row, (n, label) in enumerate(zip(order.tolist(), [1, 2, 5], strict=True)):
        tokens = torch.tensor([[*TOKENS[n, :2].tolist(), label]])
        torch.testing.assert_close(predictor.output(state)[row], predictor(tokens)[0, -1])


@every
def test_position_u_has_seen_the_first_u_labels(kind):
    predictor = make(kind)
    expected = predictor(TOKENS)
    # A stateless predictor forgets what is further back.
    horizon = KINDS[kind].get("context", 4)
    for changed in range(4):
        tokens = TOKENS.clone()
        tokens[:, changed] = tokens[:, changed] % (V - 1) + 1
        differs = ((predictor(tokens) - expected).abs().amax(dim=2) > 1e-6).all(dim=0)
        assert differs.tolist() == [changed < u <= changed + horizon for u in range(5)]


@every
def test_padding_and_company_change_nothing(kind):
    predictor = make(kind)
    padded = torch.cat([TOKENS[:, :2], torch.tensor([[0, 0], [3, 5], [6, 1]])], dim=1)
    alone = torch.cat([predictor(row[None, :2]) for row in TOKENS])
    torch.testing.assert_close(predictor(padded)[:, :3], alone)


@every
def test_no_labels_at_all(kind):
    predictor = make(kind)
    outputs = predictor(torch.zeros(2, 0, dtype=torch.long))
    assert outputs.shape == (2, 1, P)
    torch.testing.assert_close(outputs[:, 0], predictor.output(predictor.start(2)))


@pytest.mark.parametrize("context", [1, 2])
def test_stateless_is_a_matrix_for_each_place(context):
    predictor = make({1: "one label", 2: "two labels"}[context])
    weight = predictor.convolution.weight  # (P, P, context), the last one for the last label
    for u in range(5):
        for n in range(3):
            last = [0, 0, *TOKENS[n, :u].tolist()][-context:]
            embedded = [predictor.embedding.weight[label] for label in last]
            expected = sum(weight[:, :, i] @ x for i, x in enumerate(embedded)).relu()
            torch.testing.assert_close(predictor(TOKENS)[n, u], expected)


def test_lstm_is_that_of_torch():
    predictor = make("lstm")
    lstm = torch.nn.LSTM(P, P, batch_first=True).double()
    lstm.load_state_dict(predictor.lstm.state_dict())
    embedded = F.embedding(F.pad(TOKENS, (1, 0)), predictor.embedding.weight)
    torch.testing.assert_close(predictor(TOKENS), lstm(embedded)[0])


def zoneout_by_formula(predictor, tokens, keep):
    """Krueger et al. 2017, eq. 3–4; ``keep(new, old)`` mixes the new and the old state."""
    (w_x, w_h, b_x, b_h) = (parameter.detach() for parameter in predictor.lstm.parameters())
    hidden = cell = torch.zeros(len(tokens), P, dtype=torch.double)
    outputs = []
    for labels in F.pad(tokens, (1, 0)).T:
        x = predictor.embedding.weight[labels].detach()
        i, f, g, o = (x @ w_x.T + b_x + hidden @ w_h.T + b_h).chunk(4, dim=1)
        new_cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        new_hidden = o.sigmoid() * new_cell.tanh()
        hidden, cell = keep(new_hidden, hidden), keep(new_cell, cell)
        outputs.append(hidden)
    return torch.stack(outputs, dim=1)


def test_zoneout_is_its_expectation_in_evaluation():
    predictor = make("lstm with zoneout")
    expected = zoneout_by_formula(predictor, TOKENS, lambda new, old: 0.7 * new + 0.3 * old)
    torch.testing.assert_close(predictor(TOKENS), expected)


def test_without_zoneout_the_formula_is_the_lstm():
    predictor = make("lstm")
    expected = zoneout_by_formula(predictor, TOKENS, lambda new, old: new)
    torch.testing.assert_close(predictor(TOKENS), expected)


def test_zoneout_keeps_states_in_training():
    """At each step an element of the state is the old one with the probability asked for."""
    torch.manual_seed(1)
    dim, num = 64, 200
    options = PredictorOptions(kind="lstm", dim=dim, dropout=0.0, zoneout=0.3)
    predictor = build_predictor(V, options).train()
    hidden, cell = torch.randn(2, num, dim)
    labels = torch.randint(1, V, (num,))
    new_hidden, new_cell = predictor.advance((hidden, cell), labels)
    kept_hidden, kept_cell = new_hidden == hidden, new_cell == cell
    # 12800 draws: the standard deviation of the share is 0.004.
    assert kept_hidden.float().mean().item() == pytest.approx(0.3, abs=0.016)
    assert kept_cell.float().mean().item() == pytest.approx(0.3, abs=0.016)
    # One is kept apart from the other.
    assert (kept_hidden & kept_cell).float().mean().item() == pytest.approx(0.09, abs=0.01)
    # And what is not kept is new.
    predictor.zoneout = 0.0
    plain_hidden, plain_cell = predictor.advance((hidden, cell), labels)
    torch.testing.assert_close(new_hidden, torch.where(kept_hidden, hidden, plain_hidden))
    torch.testing.assert_close(new_cell, torch.where(kept_cell, cell, plain_cell))


def test_zoneout_draws_at_every_step_of_a_sequence():
    predictor = make("lstm with zoneout").train()
    torch.manual_seed(3)
    first = predictor(TOKENS)
    torch.manual_seed(3)
    torch.testing.assert_close(predictor(TOKENS), first)
    torch.manual_seed(3)
    torch.testing.assert_close(stepped(predictor, TOKENS), first)
    assert not torch.equal(predictor(TOKENS), first)
    kept = (first[:, 1:] == first[:, :-1]).any(dim=2)  # some element of most of the states
    assert kept.float().mean() > 0.5


@every
def test_dropout_is_for_training_only(kind):
    predictor = make(kind, dropout=0.5)
    predictor.zoneout = 0.0
    expected = predictor(TOKENS)
    assert torch.equal(predictor(TOKENS), expected)
    predictor.train()
    torch.manual_seed(3)
    dropped = predictor(TOKENS)
    assert not torch.equal(dropped, expected)
    torch.manual_seed(3)
    assert torch.equal(predictor(TOKENS), dropped)
    predictor.dropout.p = 0.0
    torch.testing.assert_close(predictor(TOKENS), expected)


@every
def test_all_parameters_learn(kind):
    predictor = make(kind).train()
    predictor(TOKENS).pow(2).sum().backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@every
def test_in_training_blank_stands_in_some_labels_place(kind):
    predictor = make(kind)
    expected = predictor(torch.zeros_like(TOKENS))
    predictor.token_dropout = 1.0
    assert (predictor(TOKENS) - expected).abs().max() > 0.1  # not while decoding
    if "zoneout" not in kind:
        torch.testing.assert_close(predictor.train()(TOKENS), expected)


def test_the_share_of_blanks_is_the_probability():
    torch.manual_seed(0)
    options = PredictorOptions(dim=P, context=1, dropout=0.0, token_dropout=0.3)
    predictor = build_predictor(V, options).train()
    outputs = predictor(torch.ones(100, 100, dtype=torch.long))[:, 1:]  # (N, U, P)
    (of_blank,) = predictor(torch.ones(1, 0, dtype=torch.long))[0]
    share = (outputs - of_blank).abs().sum(2).lt(1e-6).double().mean()
    assert float(share) == pytest.approx(0.3, abs=0.02)
