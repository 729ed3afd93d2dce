"""Trees on the banks: the picture is of the tables' numbers."""

from pathlib import Path

from benchmarks.trees import measured


def test_the_lines_of_honest_campaigns_are_read_and_no_others(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("| epsilon | settings chosen | AUC | worst seed |\n| --- | --: | --: | --: |\n"
                    "| 5 | depth 4, l2 0.01 | 0.7837 ± 0.0010 | 0.7826 |\n"
                    "| 5, two of twelve lie | depth 4, l2 0.01 | 0.7829 ± 0.0013 | 0.7814 |\n"
                    "| none | depth 4, l2 0.002 | 0.7882 | 0.7882 |\n| pooled training, not private |  | 0.7870 | 0.633 |\n")
    assert measured(page) == {"5": (0.7837, 0.001), "none": (0.7882, 0.0)}


def test_both_pages_have_the_lines_of_the_picture():
    docs = Path(__file__).parents[2] / "docs"
    assert {"1", "5", "none"} <= measured(docs / "trees.md").keys() & measured(docs / "utility.md").keys()
