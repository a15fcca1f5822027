"""Roles of a survey: rules of one's own, votes, agreement; real captures where there are any."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import Capture, CaptureError, OptionError, head_roles, role_agreement, role_votes

PLACES = ["set", "run", "layer", "head"]


def survey_of(runs=3, layers=2, heads=4, keys=30, **options):
    random = np.random.default_rng(0)
    return headgrid.survey(
        Capture.from_array(
            random.normal(size=(heads, keys, keys)), layer=n, run=f"run_{r}", **options
        )
        for r in range(runs)
        for n in range(layers)
    )


def table_of(**runs):
    """Return roles of one set and layer, a letter a head and - for none, in the order a, b, c."""
    rows = [("", run, 0, head, None if role == "-" else role) for run, word in runs.items()
            for head, role in enumerate(word)]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*PLACES, "role"])
    return table.assign(role=pd.Categorical(table["role"], ["a", "b", "c"], ordered=True))


def test_rows_are_those_of_the_captures_in_order():
    captures = [
        Capture.from_array(
            np.arange(32.0).reshape(2, 4, 4) + 100 * n, block_sizes=[2, 1, 1], layer=n
        )
        for n in (1, 0)
    ]
    rows = headgrid.survey(captures).rows
    assert rows[PLACES[2:]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    np.testing.assert_array_equal(rows["last_query"][0], captures[1].full_frame_attention[0, 3])
    np.testing.assert_array_equal(rows["last_block"][3], captures[0].last_block_rows[1])
    np.testing.assert_array_equal(rows["key_frames"][3], [0, 1, 2, 3])
    last = headgrid.survey(Capture.from_array(last_block=[[1.0, np.nan]])).rows
    for name in ("last_query", "last_block"):
        np.testing.assert_array_equal(last[name][0], [1.0, np.nan])


def test_a_rule_of_ones_own_sees_each_run_once_and_may_return_what_it_likes():
    survey, seen = survey_of(), []

    def by_rank(rows, half=0.5):
        seen.append((rows["run"].unique().tolist(), len(rows)))
        means = np.array([row.mean() for row in rows["last_query"]])
        low = means.argsort().argsort() < half * len(rows)
        return pd.DataFrame({"role": np.where(low, "low", "high"), "margin": np.abs(means)})

    table = head_roles(survey, by_rank, half=0.25)
    assert seen == [([f"run_{r}"], 8) for r in range(3)]
    assert (table["role"] == "low").groupby(table["run"]).sum().tolist() == [2, 2, 2]
    assert list(table.columns) == [*PLACES, "role", "margin", "rule"]
    assert set(table["rule"]) == set(role_votes(table)["rule"]) == {"by_rank half=0.25"}
    assert table[PLACES].equals(survey.rows[PLACES])

    labels = ["x", None, "z", "x", "y", "x", "x", "x"]
    for returned in (
        lambda rows: labels,
        lambda rows: np.array(labels, dtype=object),
        lambda rows: pd.Series(labels)[::-1],  # with its index
        lambda rows: pd.Categorical(labels, ["z", "y", "x"]),
    ):
        table = head_roles(survey, returned)
        assert [None if pd.isna(role) else role for role in table["role"]] == labels * 3
        assert table["margin"].isna().all()
        assert table["role"].cat.ordered
    assert table["role"].cat.categories.tolist() == ["z", "y", "x"]


@pytest.mark.parametrize(
    ("rule", "error", "text"),
    [(lambda rows: ["x"] * 7, OptionError, "returned list, expected a role for each of 8 heads"),
     (lambda rows: "x", OptionError, "returned str"),
     (lambda rows: {*"abcdefgh"}, OptionError, "returned set"),
     (lambda rows: ["x" * 50, "x" * 51] * 4, CaptureError, "two roles are both called"),
     (lambda rows: rows["last_block"][0].fill(1.0), ValueError, "read-only"),
     (lambda rows: pd.Series(["x"] * 8, range(1, 9)), OptionError, "with their index"),
     (lambda rows: [None] * 8, CaptureError, "found no role of a head")],
)  # fmt: skip
def test_a_rule_that_returns_no_role_a_head_is_refused(rule, error, text):
    with pytest.raises(error, match=text):
        head_roles(survey_of(), rule)


def test_what_is_no_survey_and_no_table_of_roles_is_refused():
    with pytest.raises(CaptureError, match="found list, expected a survey"):
        head_roles([])
    for function in (role_votes, role_agreement, headgrid.role_map):
        with pytest.raises(CaptureError, match=r"found DataFrame without .*headgrid\.head_roles"):
            function(survey_of().statistics)


def test_a_vote_takes_the_first_of_even_roles_and_counts_runs_with_a_role_alone():
    votes = role_votes(table_of(r1="acb-", r2="bcb-", r3="cac-", r4="ab--"))
    assert votes["role"].astype(object).tolist()[:3] == ["a", "c", "b"]
    assert pd.isna(votes["role"][3])
    np.testing.assert_allclose(votes["share"], [2 / 4, 2 / 4, 2 / 3, np.nan])
    assert votes["runs"].tolist() == [4, 4, 3, 0]
    even = role_votes(table_of(r1="b", r2="a"))
    assert (even["role"][0], even["share"][0]) == ("a", 0.5)
    assert votes["role"].cat.categories.tolist() == ["a", "b", "c"]


def test_sets_keep_their_order_in_votes_and_heads_theirs():
    rows = [(s, "r", layer, head, "a") for s in ("z", "a") for layer in (10, 2) for head in (1, 0)]
    votes = role_votes(pd.DataFrame(rows, columns=[*PLACES, "role"]))
    assert votes["set"].tolist() == ["z"] * 4 + ["a"] * 4
    assert votes[["layer", "head"]].to_numpy().tolist()[:4] == [[2, 0], [2, 1], [10, 0], [10, 1]]


def test_tables_that_were_written_and_read_again_give_the_same(tmp_path):
    table = table_of(r1="abc-", r2="abc-")
    for made, path in (
        (table, tmp_path / "roles.csv"),
        (role_votes(table), tmp_path / "votes.csv"),
    ):
        made.to_csv(path, index=False)
        specs = [headgrid.to_spec(headgrid.role_map(t)) for t in (made, pd.read_csv(path))]
        assert specs[0]["data"] == specs[1]["data"]
        assert len(specs[0]["data"]["values"]) == 4


def test_agreement_is_the_mean_over_pairs_of_runs():
    words = {"r1": "aabbc-ab", "r2": "abbbcaab", "r3": "aabcc-bb"}
    shares, kappas = [], []
    for one, two in combinations(words.values(), 2):
        pairs = [(x, y) for x, y in zip(one, two, strict=True) if "-" not in (x, y)]
        same = sum(x == y for x, y in pairs) / len(pairs)
        chance = (
            sum(
                sum(x == role for x, _ in pairs) * sum(y == role for _, y in pairs)
                for role in "abc"
            )
            / len(pairs) ** 2
        )
        shares.append(same)
        kappas.append((same - chance) / (1 - chance))
    (row,) = role_agreement(table_of(**words)).itertuples(index=False)
    assert (row.runs, row.pairs) == (3, 3)
    assert row.share == pytest.approx(np.mean(shares))
    assert row.kappa == pytest.approx(np.mean(kappas))


def test_agreement_is_undefined_for_one_run_and_kappa_where_all_is_one_role():
    (row,) = role_agreement(table_of(r1="ab")).itertuples(index=False)
    assert (row.runs, row.pairs) == (1, 0)
    assert np.isnan([row.share, row.kappa]).all()
    (row,) = role_agreement(table_of(r1="aa", r2="aa")).itertuples(index=False)
    assert (row.pairs, row.share) == (1, 1.0)
    assert np.isnan(row.kappa)
    (row,) = role_agreement(table_of(r1="a-", r2="-a")).itertuples(index=False)
    assert row.pairs == 0


def test_real_captures_have_all_three_roles_whose_shares_are_those_of_their_rows(shared):
    survey = headgrid.survey(shared / "data/frames72")
    table = head_roles(survey)
    assert len(table) == 360
    assert set(table["role"]) == {"Anchor", "Wave", "Veil"}
    positive = np.array([(row[:-3] > 0).mean() for row in survey.rows["last_query"]])
    assert (table["role"][positive >= 0.8] == "Anchor").all()
    assert (table["role"][1 - positive >= 0.8] == "Veil").all()
    assert "Wave" not in set(table["role"][(positive >= 0.8) | (positive <= 0.2)])
