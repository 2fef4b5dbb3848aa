"""The fault script says what it found."""

from tests import faults


def test_whatever_must_be_empty_and_is_not_is_a_failure() -> None:
    fine = {
        "kills": {"kills": 50, "survivors": [], "runs": [{"other_results": []}]},
        "again": {"runs": [{"only": "03", "lost_batches": []}]},
    }
    assert faults.failures(fine) == []
    for part in ("survivors", "tracebacks", "lost_batches"):
        assert faults.failures({"kills": {part: ["x"]}}) == [f"{part}: ['x']"]
    deep = {"disk": {"disks": [{"leftovers": ["y"]}, {"other_results": ["z"]}]}}
    assert faults.failures(deep) == ["leftovers: ['y']", "other_results: ['z']"]
