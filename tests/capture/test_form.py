import pytest

from headgrid import Capture, CaptureError
from headgrid.capture.form import CaptureForm, expect_alike
from headgrid.capture.statistic import STATISTICS
from synthetic import block_capture

ROW = Capture.from_array(last_block=[[1.0, 2.0, 3.0, 4.0]] * 2, block_sizes=[2, 2])
OTHERS = {
    "the statistic": (block_capture(statistic="mass"), "logit", "mass"),
    "the number of heads": (block_capture(3), "2", "3"),
    "the key frames": (block_capture(2, (2, 3)), "4 (0, 1, 2, 3)", "5 (0, 1, 2, 3, 4)"),
    "block_sizes": (block_capture(2, (1, 3)), "2 (2, 2)", "2 (1, 3)"),
    "full_frame_attention": (ROW, "present", "absent"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_is_named_with_what_each_has(name):
    other, first, second = OTHERS[name]
    found = CaptureForm.of(block_capture()).differences(CaptureForm.of(other))
    assert (name, first, second) in found
    same = block_capture(scale=7, layer=9, run="run_001", prompt="x")
    assert CaptureForm.of(same).differences(CaptureForm.of(block_capture())) == []


def test_captures_that_differ_are_refused_by_name_and_only_for_what_matters():
    captures = [block_capture().replace(source="a.pt"), block_capture(3).replace(source="b.pt")]
    expect_alike(captures, "one statistic", ["statistic"])
    with pytest.raises(CaptureError, match=r"a\.pt and b\.pt differ in the number of heads: 2 and"):
        expect_alike(captures, "the same in both")


def test_statistics_that_are_derived_know_their_base_and_sign():
    bases = {s.name for s in STATISTICS.values() if not s.derived}
    assert bases == {"logit", "mass", "entropy", "max_logit"}
    for name, statistic in STATISTICS.items():
        assert statistic.name == name
        assert statistic.base in bases
        assert statistic.has_mean == name.endswith(("_mean", statistic.base))
    signed = {name for name, statistic in STATISTICS.items() if statistic.signed}
    differences = {f"{name}_difference" for name in bases}
    assert signed == {"logit", "logit_mean", "max_logit", "max_logit_mean"} | differences
