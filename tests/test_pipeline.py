import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from dwindle import Archive, pipeline
from dwindle.data import Mnist
from dwindle.errors import CheckpointError, OutputError, RecipeError, RunError, TensorError
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.models import build
from dwindle.outcome import measure, read_network
from dwindle.pipeline import RunFolder, run_recipe
from dwindle.prune import get_mask
from dwindle.recipe import parse_recipe
from dwindle.records import Raw, Shared, to_storage
from dwindle.share import get_codebook
from dwindle.train import read_model, read_progress

CONTENT = {
    "name": "tiny",
    "model": "lenet-300-100",
    "seed": 3,
    "reference": {"epochs": 1, "lr": 0.05, "dropout": 0.5, "shift": 1, "batch": 32},
    "prune": {
        "sparsity": {"fc1.weight": 0.9, "fc2.weight": 0.5},
        "rounds": 2,
        "epochs": 1,
        "lr": 0.02,
        "batch": 32,
    },
    "share": {"bits": {"linear": 2}, "epochs": 1, "lr": 0.01, "batch": 32},
    "code": {"gap_bits": 4},
}


def recipe(**sections):
    """The tiny recipe with sections changed, or left out where None."""
    content = dict(CONTENT)
    for name, value in sections.items():
        if value is None:
            del content[name]
        else:
            content[name] = {**content[name], **value} if isinstance(value, dict) else value
    return parse_recipe(content, "tiny.toml")


def digits():
    generator = torch.Generator().manual_seed(8)
    images = torch.randint(0, 256, (150, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (150,), generator=generator)
    return Mnist(images[:100], labels[:100], images[100:], labels[100:])


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run."""
    at = RunFolder(tmp_path_factory.mktemp("whole"))
    lines = []
    model = run_recipe(recipe(), at.path, data, log=lines.append)
    return at, model, lines


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


class Clock:
    """Raises at the given moment: each function it wraps has one before it starts and one when it is done."""

    def __init__(self, monkeypatch, moment, *names):
        self.left = moment
        for name in names:
            monkeypatch.setattr(pipeline, name, self.wrap(getattr(pipeline, name)))
        monkeypatch.setattr(pipeline.file, "write", self.wrap(pipeline.file.write))

    def wrap(self, function):
        def wrapped(*arguments, **settings):
            self.tick()
            result = function(*arguments, **settings)
            self.tick()
            return result

        return wrapped

    def tick(self):
        self.left -= 1
        if self.left == 0:
            raise Killed


def run_killed(monkeypatch, moment, names, *arguments, **settings):
    with monkeypatch.context() as patched:
        Clock(patched, moment, *names)
        with pytest.raises(Killed):
            run_recipe(*arguments, **settings)


MOMENTS = 26
NAMES = ("save_snapshot", "fit_epoch", "write_checkpoint", "SharePhase", "PrunePhase")


def test_a_run_leaves_three_networks_and_says_what_it_does(whole, data):
    at, model, lines = whole
    left = {"recipe.json", "snapshot.pt", "reference.safetensors", "pruned.safetensors", "model.dwz"}
    assert {path.name for path in at.path.iterdir()} == left
    assert [line.split(":")[0] for line in lines] == ["reference 1/1", "prune 1/2", "prune 2/2", "share 1/1"]
    with Archive(at.compressed) as archive:
        assert archive.metadata == {"model": "lenet-300-100"}
        found = {name: archive.record(name) for name in archive}
    assert isinstance(found["fc1.weight"], Shared)
    assert isinstance(found["fc1.bias"], Raw)
    assert float((to_storage(found["fc1.weight"]) == 0).mean()) == pytest.approx(0.9, abs=1e-5)
    assert len(found["fc3.weight"].codebook) == 4
    pruned = read_checkpoint(at.pruned).records
    assert set(pruned) == set(build("lenet-300-100").state_dict())
    zeros = to_storage(pruned["fc1.weight"]) == 0
    assert (to_storage(found["fc1.weight"])[zeros] == 0).all()
    outcome = measure(recipe(), at.path, data, model)
    assert outcome.same_predictions is True
    assert outcome.file == at.compressed
    assert outcome.parameters == 266610
    assert outcome.parameters_left == 266610 - 211680 - 15000
    assert outcome.confusion_after.sum() == 50
    assert outcome.ledger.file_size == at.compressed.stat().st_size
    json.dumps(outcome.to_json())


def test_the_moments_of_a_run_are_all_tried(tmp_path, data, whole, monkeypatch):
    clock = Clock(monkeypatch, 1000, *NAMES)
    run_recipe(recipe(), tmp_path, data)
    assert clock.left == 1000 - MOMENTS
    assert (tmp_path / "model.dwz").read_bytes() == whole[0].compressed.read_bytes()


@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(tmp_path, data, whole, moment, monkeypatch):
    run_killed(monkeypatch, moment, NAMES, recipe(), tmp_path, data)
    torch.manual_seed(moment)  # another process would not be where this one stopped
    model = run_recipe(recipe(), tmp_path, data)
    for name in ("model.dwz", "pruned.safetensors", "reference.safetensors"):
        assert (tmp_path / name).read_bytes() == (whole[0].path / name).read_bytes(), name
    assert measure(recipe(), tmp_path, data, model).same_predictions
    assert not list(tmp_path.glob(".*"))


def test_a_run_killed_again_and_again_ends_in_the_same_bytes(tmp_path, data, whole, monkeypatch):
    for attempt in itertools.count(1):
        assert attempt < 20
        with monkeypatch.context() as patched:
            Clock(patched, 4, "save_snapshot", "fit_epoch")
            try:
                run_recipe(recipe(), tmp_path, data)
                break
            except Killed:
                continue
    assert attempt > 3
    assert (tmp_path / "model.dwz").read_bytes() == whole[0].compressed.read_bytes()


def test_a_finished_run_is_not_trained_again(tmp_path, data, whole, monkeypatch):
    run_recipe(recipe(), tmp_path, data)
    monkeypatch.setattr(pipeline, "fit_epoch", None)
    lines = []
    run_recipe(recipe(), tmp_path, data, log=lines.append)
    assert lines == ["resuming share after 1 epochs"]
    assert (tmp_path / "model.dwz").read_bytes() == whole[0].compressed.read_bytes()


def test_the_snapshot_holds_masks_codebooks_and_the_model_the_corrected_dropout(whole):
    at, model, _ = whole
    assert read_progress(at.snapshot) == {"phase": "share", "epochs": 1}
    state = read_model(at.snapshot)
    mask = state["fc1.parametrizations.weight.0.mask"]
    assert int(mask.sum()) == round(0.1 * mask.numel())
    assert torch.equal(get_mask(model, "fc1.weight"), mask)
    book = state["fc1.parametrizations.weight.1.centroids"]
    assert torch.equal(get_codebook(model, "fc1.weight").centroids, book)
    assert 0 in book.tolist()
    assert "fc3.parametrizations.weight.0.centroids" in state
    assert model.drop1.p == pytest.approx(0.5 * 0.1**0.5, rel=1e-4)
    assert model.drop2.p == pytest.approx(0.5 * 0.5**0.5, rel=1e-4)


def test_dropout_is_left_alone_where_the_recipe_says_so(tmp_path, data):
    model = run_recipe(recipe(prune={"correct_dropout": False}, share=None), tmp_path, data)
    assert model.drop1.p == 0.5


def test_resuming_with_another_recipe_is_refused_and_force_begins_anew(tmp_path, data, whole, monkeypatch):
    run_recipe(recipe(seed=4), tmp_path, data)
    other = (tmp_path / "model.dwz").read_bytes()
    for changed, key in ((recipe(), "seed"), (recipe(seed=4, share={"lr": 0.5}), "share")):
        with pytest.raises(RunError, match=rf"got one that differs in {key}; --force begins anew$"):
            run_recipe(changed, tmp_path, data)
    assert (tmp_path / "model.dwz").read_bytes() == other
    run_killed(monkeypatch, 1, ["fit_epoch"], recipe(), tmp_path, data, force=True)
    assert not (tmp_path / "model.dwz").exists()
    assert not (tmp_path / "snapshot.pt").exists()
    run_recipe(recipe(), tmp_path, data, force=True)
    assert (tmp_path / "model.dwz").read_bytes() == whole[0].compressed.read_bytes() != other


def test_the_number_of_threads_belongs_to_a_run(tmp_path, data):
    run_recipe(recipe(prune=None, share=None), tmp_path, data)
    torch.set_num_threads(2)
    try:
        with pytest.raises(RunError, match="differs in threads"):
            run_recipe(recipe(prune=None, share=None), tmp_path, data)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["snapshot.pt", "model.dwz", "reference.safetensors", "pruned.safetensors"])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_somebody_elses_files_is_refused(tmp_path, data, name, force):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(RunError, match=f"{name}: expected no such file in a folder without a run"):
        run_recipe(recipe(), tmp_path, data, force=force)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"precious")]


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{"])
def test_a_damaged_description_is_refused(tmp_path, data, content):
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(RunError, match="--force begins anew"):
        run_recipe(recipe(), tmp_path, data)


def test_a_damaged_snapshot_is_refused(tmp_path, data, monkeypatch):
    run_killed(monkeypatch, 4, ["fit_epoch"], recipe(), tmp_path, data)
    snapshot = tmp_path / "snapshot.pt"
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"snapshot\.pt: expected a whole snapshot"):
        run_recipe(recipe(), tmp_path, data)


def test_folders_that_cannot_be_made(tmp_path, data):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="cannot be written"):
            run_recipe(recipe(), folder, data)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("prune", {"sparsity": {"fc4.weight": 0.5}}, r"^fc4\.weight: expected the name of a prunable tensor"),
        ("share", {"bits": {"linaer": 3}}, r"^linaer: expected the name of a layer type or tensor"),
        ("share", {"bits": {"conv1.weight": 3}}, r"^conv1\.weight: "),
    ],
)
def test_names_the_model_does_not_have_are_refused_before_training(tmp_path, data, section, values, message):
    with pytest.raises(TensorError, match=message):
        run_recipe(recipe(**{section: values}), tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("schedule", ["gradual", "iterative"])
@pytest.mark.parametrize(
    ("rounds", "between", "epochs"),
    [(1, 1, 0), (1, 2, 1), (3, 1, 0), (3, 1, 1), (2, 2, 1), (3, 0, 1), (2, 0, 0)],
)
def test_schedules_end_at_the_sparsity_asked_for(tmp_path, data, schedule, rounds, between, epochs):
    prune = {"schedule": schedule, "rounds": rounds, "epochs_between": between, "epochs": epochs}
    lines = []
    plan = recipe(reference={"epochs": 0}, prune=prune, share=None)
    model = run_recipe(plan, tmp_path, data, log=lines.append)
    assert len(lines) == (rounds - 1) * between + epochs
    for name, sparsity in CONTENT["prune"]["sparsity"].items():
        mask = get_mask(model, name)
        assert int(mask.numel() - mask.sum()) == pytest.approx(sparsity * mask.numel(), abs=1)
        weight = to_storage(read_checkpoint(tmp_path / "pruned.safetensors").records[name])
        assert int((weight != 0).sum()) == int(mask.sum())


def test_rounds_remove_a_little_at_a_time(tmp_path, data, monkeypatch):
    left = []
    fit = pipeline.fit_epoch

    def spy(model, *arguments, **settings):
        mask = get_mask(model, "fc1.weight")
        left.append(1.0 if mask is None else round(float(mask.float().mean()), 4))
        return fit(model, *arguments, **settings)

    monkeypatch.setattr(pipeline, "fit_epoch", spy)
    prune = {"rounds": 3, "epochs_between": 1, "sparsity": {"fc1.weight": 0.875}}
    for schedule, expected in (("iterative", [1, 0.5, 0.25, 0.125]), ("gradual", [1, 0.3843, 0.1574, 0.125])):
        left.clear()
        run_recipe(recipe(prune={**prune, "schedule": schedule}, share=None), tmp_path / schedule, data)
        assert left == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("without", "phases"),
    [
        (("prune",), ["reference", "share"]),
        (("share",), ["reference", "prune", "prune"]),
        (("prune", "share"), ["reference"]),
    ],
)
def test_stages_may_be_left_out(tmp_path, data, without, phases):
    plan = recipe(**dict.fromkeys(without))
    lines = []
    model = run_recipe(plan, tmp_path, data, log=lines.append)
    assert [line.split()[0] for line in lines] == phases
    assert (tmp_path / "pruned.safetensors").exists() == ("prune" not in without)
    outcome = measure(plan, tmp_path, data, model)
    assert outcome.same_predictions
    assert (outcome.pruned_error is None) == ("prune" in without)
    if without == ("prune", "share"):
        assert outcome.changed == ()
        assert outcome.reference_error == outcome.test_error


def test_a_budget_chooses_the_bits(tmp_path, data):
    sizes = []
    budgets = (28_000, 40_000)
    for budget in budgets:
        folder = tmp_path / str(budget)
        run_recipe(recipe(share={"budget": budget}, code=None), folder, data)
        sizes.append(RunFolder(folder).compressed.stat().st_size)
    biases = 4 * 410
    # Gaps and Huffman codes come within 8 % of the entropy that the budget is counted in.
    assert all(size - biases < 1.08 * budget for size, budget in zip(sizes, budgets, strict=True))
    assert sizes[1] > 1.1 * sizes[0]
    with pytest.raises(RecipeError, match="budget"):
        run_recipe(recipe(share={"budget": 10}), tmp_path / "small", data)


def test_a_validation_set_is_held_out_and_reported(tmp_path, data):
    lines = []
    run_recipe(recipe(validation=20, prune=None, share=None), tmp_path, data, log=lines.append)
    assert "validation error" in lines[0]


def test_a_reference_is_compressed_instead_of_trained(tmp_path, data, whole):
    reference = whole[0].reference
    lines = []
    run_recipe(recipe(), tmp_path / "a", data, reference=reference, log=lines.append)
    assert [line.split()[0] for line in lines] == ["prune", "prune", "share"]
    kept = read_checkpoint(tmp_path / "a" / "reference.safetensors").records
    assert all(kept[n].data == r.data for n, r in read_checkpoint(reference).records.items())
    with pytest.raises(RunError, match="differs in reference_crc32"):
        run_recipe(recipe(), tmp_path / "a", data)
    with pytest.raises(RunError, match="differs in reference_crc32"):
        run_recipe(recipe(), tmp_path / "a", data, reference=whole[0].pruned)
    folder = tmp_path / "shards"  # the same values in another form are the same reference
    folder.mkdir()
    write_checkpoint(folder / "one.safetensors", kept)
    run_recipe(recipe(), tmp_path / "a", data, reference=folder)


def test_a_run_begun_anew_on_its_own_reference_keeps_it(tmp_path, data):
    run_recipe(recipe(), tmp_path, data)
    path = tmp_path / "reference.safetensors"
    before = path.read_bytes()
    run_recipe(recipe(), tmp_path, data, reference=path, force=True)
    assert path.read_bytes() == before


def test_bad_references_leave_the_folder_alone(tmp_path, data, whole):
    run_recipe(recipe(prune=None, share=None), tmp_path / "run", data)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    write_checkpoint(tmp_path / "other.safetensors", {"w": Raw("float32", (1,), bytes(4))})
    bad = (tmp_path / "missing", tmp_path, tmp_path / "other.safetensors", whole[0].compressed)
    for reference in bad:
        with pytest.raises(CheckpointError, match=reference.name):
            run_recipe(recipe(), tmp_path / "run", data, reference=reference, force=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_networks_are_read_from_files_that_name_themselves(tmp_path, whole):
    at = whole[0]
    assert read_network(at.compressed, None)[0] == "lenet-300-100"
    assert read_network(at.reference, "lenet-300-100")[0] == "lenet-300-100"
    with pytest.raises(CheckpointError, match="expected --model"):
        read_network(at.reference, None)
    with pytest.raises(CheckpointError, match=r"missing\.dwz: cannot be read: No such file"):
        read_network(tmp_path / "missing.dwz", None)
    with pytest.raises(CheckpointError, match=r"model\.dwz: expected the model's tensors"):
        read_network(at.compressed, "lenet-5")
    with Archive(at.compressed) as archive:
        records = {name: archive.record(name) for name in archive}
    for name in ("../../etc/passwd", "lenet-6", "", "a\nb"):
        pipeline.file.write(tmp_path / "x.dwz", records, metadata={"model": name}, force=True)
        with pytest.raises(CheckpointError, match=r"x\.dwz: expected a network out of lenet-300-100"):
            read_network(tmp_path / "x.dwz", None)
    pipeline.file.write(tmp_path / "x.dwz", records, force=True)
    with pytest.raises(CheckpointError, match="expected --model"):
        read_network(tmp_path / "x.dwz", None)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import dwindle.data
from test_pipeline import digits
dwindle.data.mnist = lambda root: digits()
from dwindle.cli import main
sys.argv = ["dwindle", "train", {recipe!r}, "-o", {run!r}, "--threads", "1"]
main()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_is_resumed_by_another(tmp_path, whole):
    text = "\n".join(
        [f'name = "tiny"\nmodel = "{CONTENT["model"]}"\nseed = 3']
        + [
            f"[{section}]\n" + "\n".join(f"{key} = {toml(value)}" for key, value in CONTENT[section].items())
            for section in ("reference", "prune", "share", "code")
        ]
    )
    (tmp_path / "tiny.toml").write_text(text)
    places = {"tests": os.path.dirname(__file__), "recipe": str(tmp_path / "tiny.toml")}  # noqa: PTH120
    command = [sys.executable, "-c", SCRIPT.format(**places, run=str(tmp_path / "run"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "prune 1/2" in line:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
    assert process.returncode == -signal.SIGKILL, seen
    assert not (tmp_path / "run" / "model.dwz").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    assert (tmp_path / "run" / "model.dwz").read_bytes() == whole[0].compressed.read_bytes()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["same_predictions"] is True


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {item}' for key, item in value.items()) + " }"
    return json.dumps(value)
