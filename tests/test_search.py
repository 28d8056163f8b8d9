"""Searching under a bound and for a size: small networks with data of their own."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import dwindle
from dwindle.errors import OutputError, RunError, SearchError, TensorError
from dwindle.records import Raw, Shared, Tied
from dwindle.search import search
from dwindle.search.targets import choose


class Task:
    """Points in 16 dimensions of 4 classes, told apart by which of 4 directions they lie along."""

    def __init__(self, model=None):
        generator = torch.Generator().manual_seed(3)
        self.inputs = torch.randn(2000, 16, generator=generator)
        self.labels = (self.inputs @ torch.randn(16, 4, generator=generator)).argmax(1)
        self.evaluations = self.passes = 0

    def model(self):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        for _ in range(8):
            self.train(model)
        self.passes = 0
        return model.eval()

    def train(self, model):
        self.passes += 1
        model.train()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for at in torch.arange(1500).split(100):
            optimizer.zero_grad()
            functional.cross_entropy(model(self.inputs[at]), self.labels[at]).backward()
            optimizer.step()

    @torch.no_grad()
    def evaluate(self, model):
        assert not model.training
        self.evaluations += 1
        return float((model(self.inputs[1500:]).argmax(1) == self.labels[1500:]).double().mean())


@pytest.fixture(scope="module")
def trained():
    return Task().model()


@pytest.fixture
def task():
    return Task()


@torch.no_grad()
def distance(model, other):
    names = dict(other.named_parameters())
    return sum(float((value - names[name]).abs().sum()) for name, value in model.named_parameters())


def records_of(path):
    with dwindle.open(path, max_bytes=None) as archive:
        return {name: archive.record(name) for name in archive}


def bounded(model, task, path, **options):
    """Search with training for what loses at most 0.02."""
    bound = {"evaluate": task.evaluate, "train": task.train, "max_drop": 0.02, "quiet": True}
    return dwindle.compress(model, path, **bound, **options)


def check_result(result, task, model, max_drop):
    """A result holds its bound by the file itself, and counts what it cost."""
    loaded = dwindle.load_into(copy.deepcopy(model), result.path).eval()
    assert result.size == result.path.stat().st_size
    assert result.evaluations == task.evaluations
    assert result.passes == task.passes
    assert task.evaluate(loaded) == result.score
    assert result.score >= result.reference_score - max_drop
    assert result.size == min(step.size for step in result.steps if step.holds)
    for step in result.steps:
        assert step.holds == (step.score >= result.reference_score - max_drop)
    state = result.model.state_dict()
    assert state
    assert not result.model.training


def test_a_bound_without_training(tmp_path, task, trained):
    result = dwindle.compress(trained, tmp_path / "x.dwz", evaluate=task.evaluate, max_drop=0.01)
    check_result(result, task, trained, 0.01)
    assert result.passes == 0
    assert result.evaluations <= 10
    assert result.rate > 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.dwz"]


def test_the_setting_found_is_the_edge_of_its_grid(tmp_path, task, trained):
    result = dwindle.compress(trained, tmp_path / "x.dwz", evaluate=task.evaluate, max_drop=0.01, quiet=True)
    best = min(step.setting["dB"] for step in result.steps if step.holds)
    assert best - 0.5 in [step.setting["dB"] for step in result.steps if not step.holds]


def test_a_bound_with_training_beats_one_without(tmp_path, task, trained):
    plain = dwindle.compress(trained, tmp_path / "a.dwz", evaluate=task.evaluate, max_drop=0.01, quiet=True)
    task = Task()
    result = dwindle.compress(
        trained, tmp_path / "b.dwz", evaluate=task.evaluate, train=task.train, max_drop=0.01, max_passes=40
    )
    check_result(result, task, trained, 0.01)
    assert 0 < result.passes <= 40
    assert result.size < plain.size
    assert any("survivors" in step.setting for step in result.steps)


def test_passes_that_are_left_go_to_smaller_networks(tmp_path, task, trained):
    result = bounded(trained, task, tmp_path / "x.dwz", max_passes=90)
    check_result(result, task, trained, 0.02)
    assert result.passes == 90
    shared = [at for at, step in enumerate(result.steps) if step.holds and step.setting["bits"] < 6]
    again = [step for step in result.steps[shared[0] :] if step.setting["bits"] == 6]
    assert min(step.setting["survivors"] for step in again) < result.steps[shared[0]].setting["survivors"]


def test_distillation_is_there_unless_it_is_turned_off(tmp_path, trained):
    files = []
    for distill in (True, False, True):
        path = tmp_path / f"{len(files)}.dwz"
        bounded(trained, Task(), path, max_passes=4, distill=distill)
        files.append(path.read_bytes())
    assert files[0] == files[2] != files[1]
    with pytest.raises(ValueError, match="distill without max_drop"):
        dwindle.compress(trained, tmp_path / "x.dwz", distill=False)


def test_the_callers_model_is_unchanged(tmp_path, task, trained):
    before = copy.deepcopy(trained.state_dict())
    dwindle.compress(
        trained, tmp_path / "x.dwz", evaluate=task.evaluate, train=task.train, max_drop=0.01, max_passes=6
    )
    after = trained.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not trained.training


@pytest.mark.parametrize("with_training", [False, True])
def test_a_size_is_kept_and_used(tmp_path, task, trained, with_training):
    train = task.train if with_training else None
    for limit in (700, 1000):
        result = dwindle.compress(
            trained,
            tmp_path / f"{limit}.dwz",
            evaluate=task.evaluate,
            train=train,
            target_size=limit,
            max_passes=30,
        )
        assert result.size <= limit
        # Of what was trained the best may be a smaller one; but all of the limit was tried.
        tried = [step.size for step in result.steps if step.holds] if with_training else [result.size]
        assert max(tried) > 0.8 * limit
        best = max(step.score for step in result.steps if step.holds and step.score is not None)
        assert result.score == best
        assert result.score > 0.7
    assert (task.passes > 0) == with_training


def test_a_size_without_evaluate_calls_nothing(tmp_path, trained):
    result = dwindle.compress(trained, tmp_path / "x.dwz", target_size=1000)
    assert 800 < result.size <= 1000
    assert (result.score, result.reference_score, result.evaluations) == (None, None, 0)


@pytest.mark.parametrize("with_training", [False, True])
def test_a_size_too_small_is_refused_with_the_nearest(tmp_path, task, trained, with_training):
    train = task.train if with_training else None
    path = tmp_path / "x.dwz"
    with pytest.raises(
        SearchError, match=r"at most 40 bytes, found none; the nearest has \d+ bytes"
    ) as caught:
        dwindle.compress(
            trained, path, evaluate=task.evaluate, train=train, target_size=40, max_passes=5, quiet=True
        )
    assert not path.exists()
    (folder,) = tmp_path.iterdir()
    nearest = folder / str(caught.value).rpartition("/")[2]
    assert f"has {nearest.stat().st_size} bytes" in str(caught.value)
    assert "\n" not in str(caught.value)
    found = dwindle.compress(trained, path, evaluate=task.evaluate, target_size=800, quiet=True)
    assert found.size <= 800


def test_no_drop_at_all_ends_with_what_is_exact_enough(tmp_path, task, trained):
    def exact(model):
        """Any change of any weight counts."""
        return -distance(model, trained)

    result = dwindle.compress(trained, tmp_path / "x.dwz", evaluate=exact, max_drop=0.0)
    assert result.score == 0
    assert result.steps[-1].setting == {"lossless": 1}
    state = dwindle.load(tmp_path / "x.dwz")
    assert all(torch.equal(state[name], value) for name, value in trained.state_dict().items())


def test_an_evaluation_that_wanders_is_said_to_hold_nothing(tmp_path, trained):
    scores = iter(range(0, -100, -1))
    with pytest.raises(SearchError, match=r"score of at least 0 .* found none; the nearest has"):
        dwindle.compress(trained, tmp_path / "x.dwz", evaluate=lambda model: next(scores), max_drop=0.0)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_reference_without_a_score_is_refused(tmp_path, trained, score):
    with pytest.raises(SearchError, match="finite number"):
        dwindle.compress(trained, tmp_path / "x.dwz", evaluate=lambda model: score, max_drop=0.1)


def test_a_score_of_nan_does_not_hold(tmp_path, task, trained):
    def fragile(model):
        """NaN unless the model is all but the same."""
        score = task.evaluate(model)
        return score if distance(model, trained) < 1 else float("nan")

    result = dwindle.compress(trained, tmp_path / "x.dwz", evaluate=fragile, max_drop=0.5)
    assert result.score >= result.reference_score - 0.5
    assert any(step.score != step.score for step in result.steps)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_drop": 0.1, "target_size": 10}, "either max_drop or target_size, got both"),
        ({"max_drop": -0.1}, "0 or more"),
        ({"max_drop": float("nan")}, "0 or more"),
        ({"target_size": 0}, "1 byte or more"),
        ({"max_drop": 0.1, "evaluate": None}, "evaluate with max_drop"),
        ({"target_size": 10, "evaluate": None, "train": print}, "evaluate with train"),
        ({"max_drop": 0.1, "max_passes": -1}, "max_passes"),
        ({"max_drop": 0.1, "bits": 3}, "bits with a search"),
        ({"max_passes": 3}, "max_passes without max_drop"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, task, trained, keywords, message):
    with pytest.raises(ValueError, match=message):
        dwindle.compress(trained, tmp_path / "x.dwz", **{"evaluate": task.evaluate, **keywords})
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_before_anything_is_evaluated(tmp_path, task, trained):
    (tmp_path / "x.dwz").write_bytes(b"mine")
    with pytest.raises(OutputError, match="force"):
        dwindle.compress(trained, tmp_path / "x.dwz", evaluate=task.evaluate, max_drop=0.1)
    assert task.evaluations == 0
    dwindle.compress(trained, tmp_path / "x.dwz", evaluate=task.evaluate, max_drop=0.1, force=True)
    assert (tmp_path / "x.dwz").read_bytes() != b"mine"


class Killed(BaseException):
    """What no library catches."""


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("bound", [{"max_drop": 0.02}, {"target_size": 700}])
def test_a_search_killed_anywhere_goes_on_to_the_same_file(tmp_path, trained, bound, trains):
    def run(path, most):
        """A whole search, killed at each call that is one too many."""
        task, calls = Task(), 0

        def counted(function):
            def call(model):
                nonlocal calls
                calls += 1
                if calls > most:
                    raise Killed
                return function(model)

            return call

        found = dwindle.compress(
            trained,
            path,
            evaluate=counted(task.evaluate),
            train=counted(task.train) if trains else None,
            max_passes=8,
            work=path.with_suffix(".work"),
            quiet=True,
            **bound,
        )
        return found, calls

    whole, total = run(tmp_path / "whole.dwz", 10**9)
    restarts = 0
    while True:
        try:
            # With training three calls at a time: a pass, its score, and one that is cut off.
            result, _ = run(tmp_path / "cut.dwz", 3 if trains else 1)
            break
        except Killed:
            restarts += 1
            assert restarts <= total
    assert restarts >= (total - 1) // (3 if trains else 1) - 1
    assert restarts > 0
    assert result.steps == whole.steps
    assert (result.evaluations, result.passes) == (whole.evaluations, whole.passes)
    assert (tmp_path / "cut.dwz").read_bytes() == (tmp_path / "whole.dwz").read_bytes()


def test_a_finished_search_is_not_done_again(tmp_path, task, trained):
    settings = {"evaluate": task.evaluate, "max_drop": 0.01, "work": tmp_path / "work", "quiet": True}
    first = dwindle.compress(trained, tmp_path / "a.dwz", **settings)
    count = task.evaluations
    second = dwindle.compress(trained, tmp_path / "b.dwz", **settings)
    assert task.evaluations == count == second.evaluations
    assert second.steps == first.steps
    assert (tmp_path / "a.dwz").read_bytes() == (tmp_path / "b.dwz").read_bytes()


def test_the_folder_of_another_search_is_refused_and_kept(tmp_path, task, trained):
    work = tmp_path / "work"
    dwindle.compress(trained, tmp_path / "a.dwz", evaluate=task.evaluate, max_drop=0.01, work=work)
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    with pytest.raises(RunError, match="differs in max_drop; remove the folder"):
        dwindle.compress(trained, tmp_path / "b.dwz", evaluate=task.evaluate, max_drop=0.02, work=work)
    other = copy.deepcopy(trained)
    with torch.no_grad():
        other[0].weight[0, 0] += 1
    with pytest.raises(RunError, match="differs in model"):
        dwindle.compress(other, tmp_path / "b.dwz", evaluate=task.evaluate, max_drop=0.01, work=work)
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before
    (work / "search.json").write_bytes(b"{")
    with pytest.raises(RunError, match="damage"):
        dwindle.compress(trained, tmp_path / "b.dwz", evaluate=task.evaluate, max_drop=0.01, work=work)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="other files"):
        dwindle.compress(trained, tmp_path / "b.dwz", evaluate=task.evaluate, max_drop=0.01, work=strange)
    assert (strange / "mine.txt").read_text() == "mine"


def test_inputs_without_labels_are_used_at_each_quality(tmp_path, task, trained):
    settings = {"evaluate": task.evaluate, "max_drop": 0.01, "quiet": True}
    batches = (batch for batch in task.inputs[:400].split(50))
    result = dwindle.compress(trained, tmp_path / "a.dwz", calibrate=batches, **settings)
    assert result.score >= result.reference_score - 0.01
    assert result.steps[0].setting == {"dB": 12.0}
    plain = dwindle.compress(trained, tmp_path / "b.dwz", **settings)
    assert plain.steps[0].setting == {"dB": 25.0}
    sizes = {step.setting["dB"]: step.size for step in plain.steps}
    common = [step for step in result.steps if step.setting["dB"] in sizes]
    assert all(step.size != sizes[step.setting["dB"]] for step in common)


def test_what_is_tried_is_printed(tmp_path, task, trained, capsys):
    result = dwindle.compress(trained, tmp_path / "x.dwz", evaluate=task.evaluate, max_drop=0.01)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("bytes") == len(result.steps)
    for step in result.steps:
        assert f"{step.size:,} bytes, {step.score:.6g}" in err
    dwindle.compress(trained, tmp_path / "y.dwz", evaluate=task.evaluate, max_drop=0.01, quiet=True)
    assert capsys.readouterr() == ("", "")


# Networks of all kinds: `evaluate` is closeness to what the network answered before.


class Attention(nn.Module):
    """A transformer block over an embedding that is its head as well."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.feed = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.head(x + self.feed(x))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.depth = nn.Conv2d(8, 8, 3, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 16, 3, groups=2)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.grouped(torch.relu(self.norm(self.depth(x)))).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(24, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        return self.head(self.cell(self.lstm(x)[0][:, -1]))


class Twice(nn.Module):
    """One layer used at two places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.second = self.first
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


class Strange(nn.Module):
    """A module nobody knows, with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(12, 12))

    def forward(self, x):
        return torch.tanh(x @ self.table)


KINDS = {
    "attention": (Attention, lambda: torch.arange(120).reshape(6, 20) % 40),
    "depthwise": (Depthwise, lambda: torch.randn(8, 8, 9, 9)),
    "recurrent": (Recurrent, lambda: torch.randn(8, 5, 6)),
    "twice": (Twice, lambda: torch.randn(30, 12)),
    "strange": (
        lambda: nn.Sequential(nn.Linear(12, 12), Strange(), nn.Linear(12, 4)),
        lambda: torch.randn(30, 12),
    ),
}


def imitate(make, inputs):
    """A model, and how to train and score copies of it by its own answers."""
    torch.manual_seed(8)
    model, given = make().eval(), inputs()
    with torch.no_grad():
        wanted = model(given)
    power = float(wanted.square().mean())

    def evaluate(other):
        with torch.no_grad():
            return 1 - float((other.eval()(given) - wanted).square().mean()) / power

    def train(other):
        optimizer = torch.optim.Adam([p for p in other.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(10):
            optimizer.zero_grad()
            functional.mse_loss(other.train()(given), wanted).backward()
            optimizer.step()

    return model, evaluate, train


@pytest.mark.parametrize("with_training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_all_kinds(tmp_path, kind, with_training):
    model, evaluate, train = imitate(*KINDS[kind])
    before = copy.deepcopy(model.state_dict())
    result = dwindle.compress(
        model,
        tmp_path / "x.dwz",
        evaluate=evaluate,
        train=train if with_training else None,
        max_drop=0.05,
        max_passes=8,
        quiet=True,
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    fresh = KINDS[kind][0]()
    loaded = dwindle.load_into(fresh, tmp_path / "x.dwz")
    assert evaluate(loaded) == result.score >= 0.95
    assert evaluate(result.model) == pytest.approx(result.score, abs=1e-6)
    assert result.rate > 1.8


def test_tied_weights_and_shared_modules_stay_one(tmp_path):
    model, evaluate, _ = imitate(*KINDS["attention"])
    dwindle.compress(model, tmp_path / "a.dwz", evaluate=evaluate, max_drop=0.05, quiet=True)
    found = records_of(tmp_path / "a.dwz")
    assert isinstance(found["embed.weight"], Shared)
    assert found["head.weight"] == Tied("embed.weight")
    model, evaluate, _ = imitate(*KINDS["twice"])
    dwindle.compress(model, tmp_path / "b.dwz", evaluate=evaluate, max_drop=0.05, quiet=True)
    found = records_of(tmp_path / "b.dwz")
    assert found["second.weight"] == Tied("first.weight")


def test_modules_that_are_not_known_are_left_exact_and_listed(tmp_path):
    model, evaluate, _ = imitate(*KINDS["strange"])
    result = dwindle.compress(model, tmp_path / "x.dwz", evaluate=evaluate, max_drop=0.05, quiet=True)
    (note,) = [note for note in result.notes if note.startswith("1.table: ")]
    assert "Strange is no layer known" in note
    assert torch.equal(dwindle.load(result.path)["1.table"], model[1].table)
    more = dwindle.compress(
        model,
        tmp_path / "y.dwz",
        evaluate=evaluate,
        max_drop=0.05,
        quiet=True,
        tensors={"1.table": True, "0.*": False},
    )
    assert more.notes == ("0.bias: kept exactly: as asked for", "0.weight: kept exactly: as asked for")
    found = records_of(more.path)
    assert isinstance(found["1.table"], Shared)
    assert torch.equal(dwindle.load(more.path)["0.weight"], model[0].weight)
    assert torch.equal(dwindle.load(more.path)["0.bias"], model[0].bias)
    with pytest.raises(TensorError, match=r"^1\.tabel: .*such as 1\.table"):
        choose(model, {"1.tabel": True})


def test_parametrizations_of_somebody_else_are_left_exact_through_training(tmp_path, task):
    torch.manual_seed(2)
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(16, 64)), nn.ReLU(), nn.Linear(64, 4)
    ).eval()
    result = dwindle.compress(
        model, tmp_path / "x.dwz", evaluate=task.evaluate, train=task.train, max_drop=0.2, max_passes=5
    )
    assert "0.weight: kept exactly: parametrized by _SpectralNorm" in result.notes
    assert result.score >= result.reference_score - 0.2


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 12)
        self.broken = nn.Linear(12, 12)
        self.one = nn.Linear(1, 1)
        self.waves = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64))
        self.counts = nn.Parameter(torch.arange(30).reshape(5, 6), requires_grad=False)
        self.register_buffer("table", torch.arange(40).reshape(8, 5))
        with torch.no_grad():
            self.broken.weight[2, 3] = float("nan")

    def forward(self, x):
        return self.fc(x)


@pytest.mark.parametrize("with_training", [False, True])
def test_odd_tensors_are_left_exact_and_named(tmp_path, with_training):
    model, evaluate, train = imitate(Odd, lambda: torch.randn(30, 12))
    result = dwindle.compress(
        model,
        tmp_path / "x.dwz",
        evaluate=evaluate,
        train=train if with_training else None,
        max_drop=0.05,
        max_passes=4,
        quiet=True,
    )
    notes = dict(note.split(": kept exactly: ") for note in result.notes)
    assert notes == {
        "broken.weight": "1 of 144 weights are NaN, infinite or huge",
        "one.weight": "of 1 elements",
        "waves": "of dtype complex64",
        "counts": "of dtype int64",
    }
    loaded = dwindle.load(result.path)
    for name in notes:
        same = loaded[name] == model.state_dict()[name]
        assert bool((same | (loaded[name] != loaded[name])).all()), name
    assert isinstance(records_of(result.path)["fc.weight"], Shared)


@pytest.mark.parametrize("with_training", [False, True])
def test_hooks_of_torch_are_recognised(tmp_path, task, trained, with_training):
    model = copy.deepcopy(trained)
    torch_prune.l1_unstructured(model[0], "weight", 0.7)
    torch_prune.ln_structured(model[2], "weight", 0.25, n=2, dim=1)
    model(task.inputs[:3])
    mask = model[0].weight_mask.bool()
    result = dwindle.compress(
        model,
        tmp_path / "x.dwz",
        evaluate=task.evaluate,
        train=task.train if with_training else None,
        max_drop=0.02,
        max_passes=4,
        quiet=True,
    )
    assert "0.weight: pruned before by torch.nn.utils.prune" in result.notes
    assert hasattr(model[0], "weight_orig")
    loaded = dwindle.load(result.path)
    assert set(loaded) == set(trained.state_dict())
    assert not loaded["0.weight"][~mask].any()
    dense = dwindle.compress(trained, tmp_path / "y.dwz", evaluate=task.evaluate, max_drop=0.02, quiet=True)
    assert result.size < dense.size


def test_plain_zeros_stay_zeros_through_training(tmp_path, task, trained):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        weight = model[0].weight
        weight[weight.abs() < weight.abs().median()] = 0
    zeros = model[0].weight == 0
    result = dwindle.compress(
        model, tmp_path / "x.dwz", evaluate=task.evaluate, train=task.train, max_drop=0.05, max_passes=4
    )
    assert "0.weight: found pruned, 50% zeros" in result.notes
    assert not dwindle.load(result.path)["0.weight"][zeros].any()


def test_repeated_values_are_kept_exactly(tmp_path, task, trained):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model[0].weight.copy_((model[0].weight * 8).round() / 8.1)
    values = set(model[0].weight.unique().tolist())
    result = dwindle.compress(model, tmp_path / "x.dwz", evaluate=task.evaluate, max_drop=0.05, quiet=True)
    assert f"0.weight: found shared, {len(values)} values" in result.notes
    assert torch.equal(dwindle.load(result.path)["0.weight"], model[0].weight)
    assert isinstance(records_of(result.path)["0.weight"], Shared)


def test_prune_share_retrain_share_again_and_search(tmp_path, task, trained):
    from dwindle.prune import prune
    from dwindle.share import share

    model = copy.deepcopy(trained)
    prune(model, sparsity={"0.weight": 0.4})
    task.train(model)
    share(model, bits={"0.weight": 5})
    task.train(model)
    prune(model, sparsity={"0.weight": 0.6, "2.weight": 0.3})
    task.train(model)
    share(model, bits={"0.weight": 4, "2.weight": 6})
    model.eval()
    zeros = model[0].weight == 0
    task.passes = 0
    result = dwindle.compress(
        model, tmp_path / "x.dwz", evaluate=task.evaluate, train=task.train, max_drop=0.02, max_passes=8
    )
    assert not dwindle.load(result.path)["0.weight"][zeros].any()
    assert result.score >= result.reference_score - 0.02
    assert result.passes == task.passes <= 8


def test_a_model_without_weights_is_written_as_it_is(tmp_path):
    model = nn.Sequential(nn.BatchNorm1d(4)).eval()
    result = search(
        model, tmp_path / "x.dwz", evaluate=lambda m: 1.0, train=lambda m: None, max_drop=0.1, quiet=True
    )
    assert set(dwindle.load(result.path)) == set(model.state_dict())
    assert result.passes == 0


def test_the_folder_holds_no_more_than_it_needs(tmp_path, task, trained):
    work = tmp_path / "work"
    result = bounded(trained, task, tmp_path / "x.dwz", max_passes=20, work=work)
    assert len(list(work.glob("*.dwz"))) == 1
    assert len(list(work.glob("*.pt"))) <= 12
    kept = json.loads((work / "search.json").read_text())
    assert len(kept["position"]["steps"]) == len(result.steps)
    assert isinstance(records_of(tmp_path / "x.dwz")["0.bias"], Raw)
