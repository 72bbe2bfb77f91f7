"""Predictions of new scans: what a run found in its own queries, grids of any orientation, and what is refused."""

import shutil

import nibabel
import numpy as np
import pytest
import torch
from helpers import scans_of, write_nifti

import fsseg
from fsseg import FssegError, load_predictor, load_recipe
from fsseg.data.volume import on_working_grid
from fsseg.prediction.files import predict_files, read_volume
from fsseg.system.names import file_name


@pytest.fixture(scope="module")
def work(finished_run):
    """A finished run, and its folder of scans."""
    results = finished_run()
    return results, scans_of(results), load_recipe(results.path / "recipe.toml")


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


def test_a_runs_own_queries_are_segmented_as_the_run_did(work, tmp_path):
    """Every row that is no oracle, bit for bit, from the same support slices."""
    results, root, recipe = work
    for row in recipe.variants:
        if row.threshold.name == "ocp":
            continue
        predictor = load_predictor(results.path, variant=row.name)
        for score in [score for score in results.scores if score.variant == row.name]:
            case, support, name = score.case, score.support_case, score.class_name
            shown = read_volume(root / f"image_{support}.nii.gz", root / f"label_{support}.nii.gz")
            value = {"bright": 1, "dark": 2}[name]
            fitted = predictor.fit(shown, slices=score.support_slices, classes={value: name})
            found = fitted.predict(read_volume(root / f"image_{case}.nii.gz"))
            slug = file_name(row.name)
            kept = voxels(results.path / "fold0" / "labels" / slug / f"{case}_{name}.nii.gz")
            grid = read_volume(root / f"image_{case}.nii.gz").grid
            assert np.array_equal(grid.to_file((found.labels == value).astype(np.uint8)), kept)


def oblique(path, source, target):
    """The same scan in another order of axes, one of them turned round, under a rotated affine."""
    file = nibabel.load(source)
    data, affine = np.asanyarray(file.dataobj), file.affine
    turned, order = np.flip(data.transpose(1, 2, 0), axis=0), [1, 2, 0]
    moved = affine[:, [*order, 3]].copy()
    moved[:3, 3] += moved[:3, 0] * (turned.shape[0] - 1)
    moved[:3, 0] *= -1
    angle = 0.2
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    nibabel.save(nibabel.Nifti1Image(turned, rotation @ moved), path / target)
    return path / target


def test_a_scan_in_oblique_orientation_is_overlaid_exactly(work, tmp_path):
    """Its labels are those of the plain scan, voxel by voxel, on its own grid."""
    results, root, _ = work
    turned = oblique(tmp_path, root / "image_3.nii.gz", "turned.nii.gz")
    plain = shutil.copy(root / "image_3.nii.gz", tmp_path / "plain.nii.gz")
    predictor = load_predictor(results.path)
    support = root / "image_10.nii.gz", root / "label_10.nii.gz"
    written = predict_files(
        predictor, *support, [turned, tmp_path / "plain.nii.gz"], tmp_path / "out"
    )
    found, expected = (nibabel.load(path) for path, _ in written)
    image = nibabel.load(turned)
    assert found.shape == image.shape and np.array_equal(found.affine, image.affine)
    assert found.get_data_dtype() == nibabel.load(support[1]).get_data_dtype()
    back = np.flip(np.asanyarray(found.dataobj), axis=0).transpose(2, 0, 1)
    assert np.array_equal(back, np.asanyarray(expected.dataobj)) and back.any() and plain


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (2, 3), (0, 0)])
def test_a_label_map_lies_where_its_scan_does_in_every_words(work, tmp_path, codes):
    """Whether a header tells its place as a matrix, as a quaternion (here mirrored), both with codes of their own, or neither."""
    results, root, _ = work
    turned = nibabel.load(oblique(tmp_path, root / "image_3.nii.gz", "oblique.nii.gz"))
    scan = nibabel.Nifti1Image(np.asanyarray(turned.dataobj), None)
    scan.header.set_zooms(turned.header.get_zooms())
    scan.set_sform(turned.affine, codes[0])
    scan.set_qform(turned.affine, codes[1])
    nibabel.save(scan, tmp_path / "scan.nii.gz")
    support = root / "image_10.nii.gz", root / "label_10.nii.gz"
    ((path, _),) = predict_files(
        load_predictor(results.path), *support, [tmp_path / "scan.nii.gz"], tmp_path / "out"
    )
    found, scan = nibabel.load(path), nibabel.load(tmp_path / "scan.nii.gz")
    assert (
        np.array_equal(found.affine, scan.affine)
        and found.header.get_zooms() == scan.header.get_zooms()
    )
    for matrix in ("get_sform", "get_qform"):
        (one, code), (other, as_code) = (
            getattr(found, matrix)(coded=True),
            getattr(scan, matrix)(coded=True),
        )
        assert (
            code == as_code
            and (one is None) == (other is None)
            and (one is None or np.array_equal(one, other))
        )


@pytest.mark.parametrize(
    "dtype, as_stored",
    [("uint8", "uint8"), ("int16", "int16"), ("int64", "int64"), ("float32", "uint8")],
)
def test_labels_keep_their_type_and_values(work, tmp_path, dtype, as_stored):
    """Whole numbers as they are in the support; of floating point the smallest whole numbers that hold them."""
    results, root, _ = work
    labels = nibabel.load(root / "label_10.nii.gz")
    factor = 100 if dtype != "uint8" else 1
    changed = np.asanyarray(labels.dataobj).astype(dtype) * np.dtype(dtype).type(factor)
    nibabel.save(
        nibabel.Nifti1Image(changed, labels.affine, dtype=changed.dtype), tmp_path / "labels.nii.gz"
    )
    predictor, scans = load_predictor(results.path, variant="CE-T"), [root / "image_2.nii.gz"]
    support = root / "image_10.nii.gz"
    ((path, _),) = predict_files(
        predictor, support, tmp_path / "labels.nii.gz", scans, tmp_path / "out"
    )
    ((plain, _),) = predict_files(
        predictor, support, root / "label_10.nii.gz", scans, tmp_path / "plain"
    )
    assert voxels(path).dtype == as_stored
    assert (
        np.array_equal(voxels(path), factor * voxels(plain).astype(as_stored))
        and voxels(path).any()
    )


def test_a_scan_of_other_spacing_is_resampled_by_the_recipes_rule(work, tmp_path):
    """The recipe says 3 mm and 32 pixels: a scan of half the pixel size is seen as the plain one, and labelled on its own grid."""
    _, root, recipe = work
    table = recipe.dumps() | {"grid": {"spacing": 3.0, "size": 32}}
    results = fsseg.run(fsseg.recipe.reading.parse_recipe(table), runs_dir=tmp_path / "runs")
    scan = nibabel.load(root / "image_3.nii.gz")
    fine = np.asanyarray(scan.dataobj).repeat(2, axis=0).repeat(2, axis=1)
    affine = scan.affine @ np.array(
        [[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    nibabel.save(nibabel.Nifti1Image(fine, affine), tmp_path / "fine.nii.gz")
    shutil.copy(root / "image_3.nii.gz", tmp_path / "plain.nii.gz")
    support = root / "image_10.nii.gz", root / "label_10.nii.gz"
    written = predict_files(
        load_predictor(results.path),
        *support,
        [tmp_path / "fine.nii.gz", tmp_path / "plain.nii.gz"],
        tmp_path / "out",
    )
    found, plain = (nibabel.load(path) for path, _ in written)
    assert found.shape == (128, 128, 5) and np.array_equal(found.affine, affine)
    coarse = np.asanyarray(found.dataobj)[::2, ::2]
    agree = (coarse == np.asanyarray(plain.dataobj)).mean()
    assert agree > 0.98 and set(np.unique(coarse)) >= {1, 2}
    seen = [
        on_working_grid(read_volume(tmp_path / name), table["grid"])
        for name in ("fine.nii.gz", "plain.nii.gz")
    ]
    assert all(
        volume.image.shape == (5, 32, 32) and volume.spacing == (6.0, 3.0, 3.0) for volume in seen
    )


def test_probabilities_and_counts(work, tmp_path):
    results, root, _ = work
    predictor = load_predictor(results.path, variant="CE-T")
    ((path, counts),) = predict_files(
        predictor, root / "image_10.nii.gz", root / "label_10.nii.gz", [root / "image_2.nii.gz"], tmp_path, probabilities=True
    )  # fmt: skip
    labels = voxels(path)
    assert counts == {"1": int((labels == 1).sum()), "2": int((labels == 2).sum())}
    shares = {value: voxels(tmp_path / f"image_2_probability_{value}.nii.gz") for value in (1, 2)}
    assert all(
        share.dtype == np.float32 and 0 <= share.min() <= share.max() <= 1
        for share in shares.values()
    )
    assert np.array_equal(labels > 0, np.maximum(shares[1], shares[2]) > 0.5)
    assert (shares[1] >= shares[2])[labels == 1].all() and (shares[2] >= shares[1])[
        labels == 2
    ].all()


def test_the_fullest_slice_is_taken_and_unlabelled_slices_do_not_matter(work):
    results, root, _ = work
    predictor = load_predictor(results.path)
    shown = read_volume(root / "image_10.nii.gz", root / "label_10.nii.gz")
    fitted = predictor.fit(shown)
    areas = [(shown.labels == value).sum(axis=(1, 2)) for value in (1, 2)]
    assert [part.slices for part in fitted.parts] == [(int(area.argmax()),) for area in areas]
    only = np.zeros_like(shown.labels)
    only[2] = shown.labels[2]
    query = read_volume(root / "image_2.nii.gz")
    from dataclasses import replace

    both = [
        predictor.fit(replace(shown, labels=labels), slices=[2]).predict(query).labels
        for labels in (only, shown.labels)
    ]
    assert np.array_equal(*both)


@pytest.mark.parametrize(
    "how, sentence",
    [
        (
            {"variant": "OCP"},
            "row 'OCP' decides with an oracle, which needs the ground truth .* expected another row",
        ),
        ({"variant": "CET"}, "there is no row 'CET' in the run; did you mean 'CE-T'"),
        ({"fold": 4}, "there is no fold 4 in .*, expected one of 0"),
        ({"seed": 0}, "there is no seed 0 in .*, expected one of 3"),
    ],
)
def test_what_a_run_does_not_have(work, how, sentence):
    with pytest.raises(FssegError, match=sentence):
        load_predictor(work[0].path, **how)


def test_a_run_without_its_checkpoint_or_of_another_format(work, tmp_path):
    copy = shutil.copytree(work[0].path, tmp_path / "run")
    (copy / "fold0" / "training0" / "checkpoint.safetensors").unlink()
    with pytest.raises(FssegError, match="checkpoint.safetensors: it is not there any more"):
        load_predictor(copy)
    with pytest.raises(FssegError, match="nowhere: there is no run"):
        load_predictor("nowhere")
    (copy / "manifest.json").unlink()
    about = (copy / "run.json").read_text()
    (copy / "run.json").write_text(about.replace('"format": 1', '"format": 99'))
    with pytest.raises(FssegError, match="run.json: has format 99, expected 1"):
        load_predictor(copy)


def test_supports_and_scans_that_cannot_be_used(work, tmp_path):
    results, root, _ = work
    predictor = load_predictor(results.path)
    image, labels = root / "image_10.nii.gz", root / "label_10.nii.gz"
    write_nifti(tmp_path / "empty.nii.gz", np.zeros((5, 64, 64), np.uint8))
    write_nifti(tmp_path / "small.nii.gz", np.zeros((5, 32, 32), np.uint8))

    def call(labels=labels, scans=(root / "image_2.nii.gz",), **how):
        predict_files(predictor, image, labels, list(scans), tmp_path / "out", **how)

    with pytest.raises(FssegError, match="its labels have no foreground"):
        call(tmp_path / "empty.nii.gz")
    with pytest.raises(FssegError, match="small.nii.gz: has shape"):
        call(tmp_path / "small.nii.gz")
    with pytest.raises(FssegError, match="slice 0 does not show 2, expected a slice that does"):
        call(slices=[0])
    with pytest.raises(FssegError, match="slice 9 does not show 1"):
        call(slices=[9])
    with pytest.raises(FssegError, match="there is no such file"):
        call(scans=[root / "image_2.nii.gz", root / "no.nii.gz"])
    with pytest.raises(FssegError, match="two scans are called image_2"):
        call(scans=[root / "image_2.nii.gz", root / "image_2.nii.gz"])
    assert not (tmp_path / "out").exists()  # nothing is written before all files were looked at


def test_another_range_of_intensities_is_told_of(work, tmp_path):
    results, root, _ = work
    scan = nibabel.load(root / "image_2.nii.gz")
    far = nibabel.Nifti1Image(
        np.asanyarray(scan.dataobj).astype(np.float32) * 100 + 9000, scan.affine
    )
    nibabel.save(far, tmp_path / "far.nii.gz")
    notes = []

    class Listening(fsseg.system.progress.Silent):
        def note(self, text):
            notes.append(text)

    support = root / "image_10.nii.gz", root / "label_10.nii.gz"
    for scans in ([root / "image_2.nii.gz"], [tmp_path / "far.nii.gz"]):
        predict_files(
            load_predictor(results.path), *support, scans, tmp_path / "out", progress=Listening()
        )
    assert len(notes) == 1 and "far.nii.gz: its intensities go from" in notes[0]


def test_in_the_shell(work, tmp_path, shell):
    results, root, _ = work
    support = ("--support", root / "image_10.nii.gz", "--support-labels", root / "label_10.nii.gz")
    scans = ("--query", root / "image_2.nii.gz", root / "image_3.nii.gz")
    done = shell("predict", results.path, *support, *scans, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "image_2_labels.nii.gz",
        "image_3_labels.nii.gz",
    ]
    assert done.stdout.count("voxels") == 4
    done = shell("predict", results.path, *support, "--out", tmp_path / "out")
    assert done.returncode == 2 and "got no scan to segment" in done.stderr
    oracle = ("--out", tmp_path / "o", "--variant", "OCP")
    done = shell("predict", results.path, *support, *scans, *oracle)
    assert done.returncode == 2 and "oracle" in done.stderr and not (tmp_path / "o").exists()


def test_an_exported_file_predicts_without_the_run(work, tmp_path):
    """The same labels and margins, bit for bit, from a copy of one file; LinEst keeps its calibration."""
    results, root, _ = work
    support = read_volume(root / "image_10.nii.gz", root / "label_10.nii.gz")
    query = read_volume(root / "image_2.nii.gz")
    for row in ("CE-T", "LinEst"):
        file = fsseg.export_predictor(results.path, tmp_path / f"{row}.safetensors", variant=row)
        alone = fsseg.Predictor.load(file).fit(support).predict(query)
        run = load_predictor(results.path, variant=row).fit(support).predict(query)
        assert np.array_equal(alone.labels, run.labels)
        assert all(np.array_equal(alone.margins[value], run.margins[value]) for value in (1, 2))


def test_files_that_cannot_be_loaded_or_chosen_from(work, tmp_path):
    results, _, _ = work
    file = fsseg.export_predictor(results.path, tmp_path / "model.safetensors", variant="CE-T")
    with pytest.raises(FssegError, match="holds one training of the row 'CE-T' alone"):
        load_predictor(file, variant="LinEst")
    with pytest.raises(FssegError, match="got fold 1, but"):
        load_predictor(file, fold=1)
    with pytest.raises(
        FssegError, match="has format unknown, expected 1, as fsseg export writes it"
    ):
        load_predictor(results.path / "fold0" / "training0" / "checkpoint.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(file.read_bytes()[:5000])
    with pytest.raises(FssegError, match="broken.safetensors: cannot be read"):
        load_predictor(tmp_path / "broken.safetensors")
    with pytest.raises(FssegError, match="oracle"):
        fsseg.export_predictor(results.path, tmp_path / "ocp.safetensors", variant="OCP")
    assert not (tmp_path / "ocp.safetensors").exists()


@pytest.mark.filterwarnings("default")  # the exporter's own notices
@pytest.mark.slow
def test_the_backbone_as_onnx_gives_the_same_features(work, tmp_path):
    """In another runtime, for another number of slices than it was traced with."""
    onnxruntime = pytest.importorskip("onnxruntime")
    results, _, _ = work
    path = fsseg.export_onnx(results.path, tmp_path / "backbone.onnx")
    images = np.random.default_rng(0).normal(size=(3, 3, 256, 256)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"images": images}
    )
    backbone = load_predictor(results.path).segmenter.backbone
    with torch.no_grad():
        expected = (
            backbone(torch.from_numpy(images).to(next(backbone.parameters()).device)).cpu().numpy()
        )
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_export_in_the_shell(work, tmp_path, shell):
    results, _, _ = work
    for name, code, sentence in [
        ("m.safetensors", 0, "MB"),
        ("m.pt", 2, "expected a name that ends with .safetensors or .onnx"),
    ]:
        done = shell("export", results.path, tmp_path / name)
        assert done.returncode == code and sentence in " ".join((done.stdout + done.stderr).split())
        assert (tmp_path / name).exists() == (code == 0)
