"""Two models: differences, outliers, what both see, and roles, against numbers found by hand."""

import numpy as np
import pandas as pd
import pytest

import headgrid
from headgrid import Capture, CaptureError, HeadgridWarning, OptionError
from synthetic import waves


def model(heads=4, layers=3, runs=2, swap=None, **options):
    """Return the captures of a model; ``swap`` is a layer and two heads that change places."""
    for run in range(runs):
        for layer in range(layers):
            values = waves(heads, 6, 6, scale=1 + layer + 0.1 * run)
            if swap and swap[0] == layer:
                values[list(swap[1:])] = values[list(swap[:0:-1])]
            named = {"layer": layer, "run": f"run_{run}", "block_sizes": [2, 2, 2]}
            yield Capture.from_array(values, **(named | options))


def compare(a, b, name="sink"):
    return headgrid.compare_models(headgrid.survey(a), headgrid.survey(b), name)


@pytest.mark.parametrize("name", ["sink", "period", "head_diagonal_mean", "recent_band_keys"])
def test_a_model_against_itself_differs_nowhere(name):
    table = compare(model(), model(), name)
    assert len(table) == 3 * 4
    assert (table["difference"] == 0).all()
    assert (table["score"] == 0).all()
    assert not table["outlier"].any()
    assert (table[["only_a", "only_b"]] == 0).all(axis=None)
    assert (table["runs_a"] == 2).all()
    own = headgrid.survey(model()).summary(name).dropna(subset="head")
    np.testing.assert_allclose(table[["a", "std_a"]], own[["mean", "std"]], rtol=1e-12)


def test_two_heads_that_change_places_differ_and_no_others():
    table = compare(model(), model(swap=(1, 0, 2))).set_index(["layer", "head"])
    for differs in (table["difference"] != 0, table["outlier"]):
        assert [place for place, found in differs.items() if found] == [(1, 0), (1, 2)]
    assert table.loc[(1, 0), "b"] == table.loc[(1, 2), "a"]
    assert table.loc[(1, 0), "difference"] == -table.loc[(1, 2), "difference"] != 0


def test_an_outlier_lies_beyond_3_5_modified_deviations_from_the_median():
    sinks = np.array([0.0, 1.0, 2.0, 3.0, 7.0, 8.0])
    rows = np.zeros((6, 4))
    first = rows.copy()
    first[:, 0] = sinks
    a, b = ([Capture.from_array(last_block=r)] for r in (rows, first))
    table = compare(a, b)
    # Median 2.5, absolute deviations 2.5 1.5 0.5 0.5 4.5 5.5, their median 2.
    np.testing.assert_allclose(table["score"], 0.6745 * (sinks - 2.5) / 2)
    assert not table["outlier"].any()
    for largest, outlier in ((12.8, False), (13.0, True)):  # scores 3.47 and 3.54
        first[5, 0] = largest
        found = compare(a, [Capture.from_array(last_block=first)])["outlier"].tolist()
        assert found == [False] * 5 + [outlier]


def one(values, **options):
    return [Capture.from_array(values, **options)]


def test_where_visibility_differs_measures_are_of_pairs_and_queries_that_both_see():
    rng = np.random.default_rng(3)
    all_pairs, causal = (rng.random((2, 6, 6)) for _ in range(2))
    a = one(all_pairs, statistic="mass", last_block_query_frames=[3, 4, 5])
    b = one(causal, statistic="mass", block_sizes=[2, 2, 2])
    tables = []
    for name in ("sink", "head_first_key_mean", "entropy"):
        with pytest.warns(HeadgridWarning, match="visibility differs in 1 of 1 layers") as told:
            tables.append(compare(a, b, name))
    seen = np.arange(6)[None, :] < np.repeat([2, 4, 6], 2)[:, None]
    for head in (0, 1):
        sink, first, entropy = (table.iloc[head] for table in tables)
        for side, values in (("a", all_pairs), ("b", causal)):
            row = values[head, 4:].mean(axis=0)  # of queries 3, 4, 5 and of 4, 5: 4 and 5
            assert sink[side] == pytest.approx(row[0] - row[1:-1].mean())
            assert first[side] == pytest.approx(values[head, :, 0].mean())
            share = row / row.sum()
            assert entropy[side] == pytest.approx(-(share * np.log(share)).sum())
        whole = all_pairs[head].sum()
        assert sink["only_a"] == pytest.approx(all_pairs[head][~seen].sum() / whole)
        assert sink["only_b"] == 0
    mean = 100 * tables[0]["only_a"].mean()
    assert f"does not see {mean:.3g} % of A's mass, 0 % of B's" in str(told[0].message)


def test_of_logits_the_share_is_of_pairs_and_unseen_keys_are_left_out_of_both():
    values = np.arange(32.0).reshape(2, 4, 4) ** 1.5
    windowed = values.copy()
    windowed[:, 3, 1] = np.nan
    with pytest.warns(HeadgridWarning, match="not see 6.25 % of A's pairs, 0 % of B's"):
        table = compare(one(values), one(windowed))
    assert (table["difference"] == 0).all()
    assert table["a"].tolist() == (values[:, 3, 0] - values[:, 3, 2]).tolist()
    rows = [one(None, last_block=v[:, 3]) for v in (values, windowed)]
    with pytest.warns(HeadgridWarning, match="not see 25 % of A's pairs, 0 % of B's"):
        assert compare(*rows)["a"].tolist() == table["a"].tolist()


def test_what_only_one_has_is_kept():
    table = compare(model(), model(layers=2))
    lost = table[table["layer"] == 2]
    assert lost["a"].notna().all()
    assert lost["difference"].isna().all()
    assert (table["layer"] < 2).sum() == 8
    assert not lost["outlier"].any()


def test_models_of_other_frames_are_compared_over_their_own_and_that_is_said():
    rows = [one(None, last_block=[[5.0, *[1.0] * n, 0.0]]) for n in (4, 9)]
    with pytest.warns(HeadgridWarning) as told:
        table = compare(*rows)
    assert "differ in the key frames: 6 (0, 1, 2, 3, 4, 5) and 11" in str(told[1].message)
    assert table["difference"].tolist() == [0.0]
    assert table[["only_a", "only_b"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (model(heads=3), "A and B differ in the number of heads: 4 and 3; expected"),
        (model(statistic="max_logit"), "differ in the statistic: logit and max_logit"),
        (
            model(block_sizes=[6], last_block_query_frames=[0]),
            "last-block rows are of queries 4, 5",
        ),
    ],
)
def test_models_that_can_not_be_compared_are_refused(other, message):
    with pytest.raises(CaptureError, match=message):
        compare(model(), other)


def test_anything_but_two_surveys_and_known_measures_is_refused():
    found = headgrid.survey(model())
    with pytest.raises(CaptureError, match="found list, expected a survey"):
        headgrid.compare_models(found, [])
    with pytest.raises(OptionError, match="did you mean 'sink'"):
        headgrid.compare_models(found, found, "sinks")


def roles(*names, run="", categories=("Anchor", "Wave", "Veil")):
    places = {"set": "", "run": run, "layer": 0, "head": range(len(names))}
    return pd.DataFrame(places).assign(role=pd.Categorical(names, list(categories), ordered=True))


def test_roles_from_and_to_stand_side_by_side():
    runs = pd.concat([roles("Anchor", "Veil", run=run) for run in "xy"])
    runs = pd.concat([runs, roles("Wave", "Veil", run="x").assign(set="other")])
    changes = headgrid.role_changes(roles("Anchor", "Wave", None), runs)
    assert changes["role_a"].astype(object).tolist()[:2] == ["Anchor", "Wave"]
    assert changes["role_b"].astype(object).tolist()[:2] == ["Anchor", "Veil"]
    assert changes["share_b"].tolist()[:2] == [pytest.approx(2 / 3), 1]
    assert changes[["role_a", "role_b"]].isna().all(axis=1).tolist() == [False, False, True]
    assert list(changes["role_b"].cat.categories) == ["Anchor", "Wave", "Veil"]


def test_roles_that_only_one_model_has_are_roles_of_both():
    """A rule of one's own that returns a list knows only what it found."""
    changes = headgrid.role_changes(
        roles("up", "up", categories=["up"]), roles("up", "down", categories=["down", "up"])
    )
    for side in ("role_a", "role_b"):
        assert list(changes[side].cat.categories) == ["up", "down"]


def test_what_is_no_table_of_roles_is_refused():
    with pytest.raises(CaptureError, match="without run, expected a table of roles"):
        headgrid.role_changes(roles("Wave"), headgrid.role_votes(roles("Wave")))
