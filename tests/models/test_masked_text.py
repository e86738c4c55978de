import torch

from plateau.data.pieces import Piece
from plateau.decoding.ctc import greedy_search
from plateau.models.masked_text import heard_places, piece_lengths
from tests.masked_text.small import small_model

MASK = 5


def places(log_probs, lengths):
    return heard_places(log_probs)


def make():
    return small_model(max_length=4).eval()


def inputs():
    tokens = torch.tensor([[2, MASK, 3], [MASK, MASK, 0]])
    return torch.randn(2, 30, 6), torch.tensor([30, 20]), tokens, torch.tensor([3, 2])


NO = torch.zeros(2, dtype=torch.bool)
FIRST = torch.tensor([True, False])


def test_ctc_is_that_of_the_model_alone():
    model, (features, lengths, *text) = make(), inputs()
    log_probs, lengths_out, found, _ = model(features, lengths, *text, NO, NO, places)
    expected, expected_lengths = model.ctc(features, lengths)
    torch.testing.assert_close(log_probs, expected)
    assert lengths_out.tolist() == expected_lengths.tolist()
    assert found.shape == (2, 3, MASK)


def test_what_is_silent_depends_on_the_text_alone():
    model, (features, lengths, *text) = make(), inputs()
    _, _, heard, _ = model(features, lengths, *text, NO, NO, places)
    _, _, found, _ = model(features, lengths, *text, FIRST, NO, places)
    _, _, other, _ = model(features.flip(1), lengths, *text, FIRST, NO, places)
    torch.testing.assert_close(found[0], other[0])
    assert (found[0] - heard[0]).abs().max() > 1e-4
    torch.testing.assert_close(found[1], heard[1])


def test_guesses_are_put_in_the_places_of_masks():
    model, (features, lengths, tokens, num_tokens) = make(), inputs()
    encoder_out, frames = model.ctc.encode(features, lengths)
    memory = model.hear(encoder_out, frames, heard_places(model.ctc.scores(encoder_out)))
    first = model.decoder(tokens, num_tokens, memory).argmax(2)
    filled = torch.stack([first[0].where(tokens[0] == MASK, tokens[0]), tokens[1]])
    expected = model.decoder(filled, num_tokens, memory)
    _, _, found, _ = model(features, lengths, tokens, num_tokens, NO, FIRST, places)
    torch.testing.assert_close(found, expected)


def test_places_of_frames_are_counted():
    labels = torch.tensor([[0, 2, 2, 0, 2, 3, 3, 0, 1]])
    probs = 0.6 * torch.nn.functional.one_hot(labels, 4) + 0.1
    assert heard_places(probs.log()).tolist() == [[-1, 0, 0, 0, 1, 2, 2, 2, 3]]
    (heard,) = greedy_search(probs.log(), torch.tensor([9]))
    assert len(heard.tokens) == 4  # as many as that finds


def test_lengths_are_looked_for_at_the_places_of_pieces():
    model, (features, lengths, *_) = make(), inputs()
    encoder_out, frames = model.ctc.encode(features, lengths)
    heard = [[-1, *[0] * (int(frames[0]) - 3), 1, 2], [0] * int(frames[1])]
    memory = model.hear(encoder_out, frames, torch.zeros(encoder_out.shape[:2])).at(heard)
    pieces = [[Piece(2, 1), Piece(MASK, 2)], [Piece(MASK, 1)]]
    found = piece_lengths(model.decoder, pieces, memory)
    assert found.shape == (2, 2, 5)
    torch.testing.assert_close(found.exp().sum(2), torch.ones(2, 2))
    # The frames of both tokens that the mask stands for are of its place.
    of_pieces = [[-1, *[0] * (int(frames[0]) - 3), 1, 1], heard[1]]
    tokens, number = torch.tensor([[2, MASK], [MASK, 0]]), torch.tensor([2, 1])
    expected = model.decoder.lengths(tokens, number, memory.at(of_pieces))
    torch.testing.assert_close(found, expected)
    alone = piece_lengths(model.decoder, pieces[1:], memory.of(torch.tensor([1])))
    torch.testing.assert_close(alone[0, 0], found[1, 0])
