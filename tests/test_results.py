from plateau.results import (
    ALIGNMENT,
    LEGEND,
    RECOGNITION,
    format_tables,
    make_records,
    meanings,
    shown,
    table_rows,
)


def test_what_is_no_number_has_no_record():
    records = make_records("test", "greedy", wer=float("inf"), cer=0.0)
    assert [record["metric"] for record in records] == ["cer"]


def test_table_has_a_line_per_set_and_method():
    records = [
        *make_records("test", "greedy", wer=12.5, cer=3.0, rtf_batch_16=0.01, rtf_batch_1=0.125),
        *make_records("test", "one_best", wer=11.25),
        *make_records("train", "conformer_ctc", train_seconds=60.0),
    ]
    assert records[0] == {"set": "test", "method": "greedy", "metric": "wer", "value": 12.5}
    text = format_tables(records)
    assert [line.split() for line in text.splitlines()] == [
        ["set", "method", "WER", "%", "CER", "%", "RTF", "batch", "16", "RTF", "batch", "1"],
        ["test", "greedy", "12.50", "3.00", "0.0100", "0.1250"],
        ["test", "one_best", "11.25*"],
        ["*", "lowest", "WER", "of", "the", "set"],
    ]
    assert text.splitlines()[-1] == LEGEND


def test_a_column_without_any_value_is_left_out():
    """As the delays of a corpus whose words' times are not known."""
    records = make_records("test", "alignment", blank_fraction=0.85)
    assert table_rows(records) == [
        [["set", "method", "blank fraction"], ["test", "alignment", "0.850"]]
    ]


def test_each_column_has_a_meaning():
    metrics = dict.fromkeys([*RECOGNITION, *ALIGNMENT, "rtf_batch_16", "rtf_batch_1"], 1.0)
    headings = [
        heading for table in table_rows(make_records("t", "m", **metrics)) for heading in table[0]
    ]
    said = meanings(headings)
    unsaid = [h for h in headings if h not in said and h not in ("set", "method")]
    assert unsaid == ["RTF batch 16", "RTF batch 1"] and "RTF batch …" in said
    assert len(set(said.values())) == len(said) == len(RECOGNITION) + len(ALIGNMENT) + 1
    assert list(meanings(["set", "method", "CER %"])) == ["CER %"]


def test_the_best_methods_of_a_set_are_marked_and_all_of_them():
    """249 of 697 words are 35.7245… %: 35.72 wherever it is shown."""
    wers = {"greedy": 24900 / 697, "one_best": 24900 / 697, "lexicon": 36.0, "beam": 35.7201}
    records = [r for m, wer in wers.items() for r in make_records("dev", m, wer=wer, cer=9.4)]
    records += make_records("alone", "greedy", wer=1.0)
    records += make_records("silent", "greedy", wer=float("inf"), cer=1.0)
    records += make_records("silent", "beam", wer=0.0, cer=1.0)
    records += make_records("dev", "alignment", word_start_delay_ms=17.336, blank_fraction=0.22449)
    recognition, alignment = table_rows(records)
    assert {(row[0], row[1]): row[2] for row in recognition[1:]} == {
        ("dev", "greedy"): "35.72*",
        ("dev", "one_best"): "35.72*",
        ("dev", "lexicon"): "36.00",
        ("dev", "beam"): "35.72*",
        ("alone", "greedy"): "1.00",
        ("silent", "greedy"): "",
        ("silent", "beam"): "0.00",
    }
    assert alignment[1:] == [["dev", "alignment", "17.3", "0.224"]]
    # Digits stand below digits, with a mark or without.
    lines = format_tables(records).splitlines()
    columns = {line.index(".") for line in lines[1:] if line.startswith(("dev", "alone"))}
    assert len(columns - {line.index(".") for line in lines if "alignment" in line}) == 1
    assert shown("wer", 24900 / 697) == "35.72" and shown("loss", 1.23456) == "1.235"


def test_a_table_without_a_choice_has_no_mark():
    assert "*" not in format_tables(make_records("test", "greedy", wer=3.0))
