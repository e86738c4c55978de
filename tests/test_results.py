from plateau.results import (
    ALIGNMENT,
    RECOGNITION,
    format_tables,
    make_records,
    meanings,
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
    lines = [line.split() for line in format_tables(records).splitlines()]
    assert lines == [
        ["set", "method", "WER", "%", "CER", "%", "RTF", "batch", "16", "RTF", "batch", "1"],
        ["test", "greedy", "12.5", "3", "0.01", "0.125"],
        ["test", "one_best", "11.25"],
    ]


def test_a_column_without_any_value_is_left_out():
    """As the delays of a corpus whose words' times are not known."""
    records = make_records("test", "alignment", blank_fraction=0.85)
    assert table_rows(records) == [
        [["set", "method", "blank fraction"], ["test", "alignment", "0.85"]]
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
