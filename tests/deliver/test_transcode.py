"""What a destination does not take compressed: decoded elsewhere, sent uncompressed, or failed with the reason."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless
from pynetdicom.presentation import AllStoragePresentationContexts

from router.core.ports import Delivered, Delivery
from router.deliver.dicom import DicomDestination
from router.errors import NoAcceptedContext, TransientError, UnreadablePixels
from router.spool.files import FileSpool
from router.transcode import transcode
from router.work.transcoder import ChildTranscoder
from tests import peers
from tests.deliver.made import CT, EXPLICIT, ScriptedScp, delivery, drawn, scripted_scp, send
from tests.peers import HOST, run
from tests.samples import dataset_bytes, pydicom_file, storable

#: Samples of pydicom with defects in their codestreams that not every decoder forgives.
DEFECTIVE = (
    "JPEG2000-embedded-sequence-delimiter",
    "JPEG-lossy",
    "JPGExtended",
    "RG3_JPLY",
    "emri_small_jpeg_2k_lossless_too_short",
)
#: Elements that decoding may change.
CHANGED = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration"}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[FileSpool]:
    spool = FileSpool(tmp_path / "spool")
    yield spool
    assert list((tmp_path / "spool" / "incoming").iterdir()) == [], "nothing is left behind"
    spool.close()


def destination(port: int, transcoder: object, ae_title: str = "SCRIPTED", **more: object) -> DicomDestination:
    settings = DicomDestination.Settings(ae_title=ae_title, host=HOST, port=port, **more)
    return DicomDestination(name="pacs", settings=settings, node_ae_title="ROUTER", transcoder=transcoder)  # type: ignore[arg-type]


class Redrawn:
    """A transcoder that decodes nothing; it may do something meanwhile."""

    def __init__(self, folder: Path, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.folder, self.meanwhile, self.count = folder, meanwhile, 0

    @contextmanager
    def uncompressed(self, delivery: Delivery) -> Iterator[Delivery]:
        self.count += 1
        self.meanwhile()
        it = delivery.instance
        yield drawn(self.folder, it.sop_instance_uid, sop_class_uid=it.sop_class_uid, byte_count=10)


def read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


def compressed() -> list[Path]:
    """A small sample of every transfer syntax at hand that has to be decoded."""
    chosen: dict[str, list[Path]] = {}
    for path in sorted(storable(), key=lambda p: p.stat().st_size):
        syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
        if syntax not in (EXPLICIT, "1.2.840.10008.1.2") and not path.name.startswith(DEFECTIVE):
            chosen.setdefault(syntax, []).append(path)
    return [path for paths in chosen.values() for path in paths[:1]]


def colours() -> list[Path]:
    names = [
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_small_odd_jpeg.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
    ]
    names += ["SC_jpeg_no_color_transform.dcm", "SC_rgb_rle.dcm", "SC_rgb_rle_16bit_2frame.dcm", "GDCMJ2K_TextGBR.dcm"]
    found = []
    for name in names:
        try:
            found.append(pydicom_file(name))
        except StopIteration:
            continue  # of pydicom-data
    return found


# ---- a real peer that takes nothing compressed


@pytest.mark.peer("storescp")
def test_storescp_that_takes_nothing_compressed_gets_the_same_pixels(
    tmp_path: Path, spool: FileSpool, tool: Callable[[str], Path]
) -> None:
    tool("storescp")
    files = compressed()
    batch = [delivery(path) for path in files]
    before = [path.read_bytes() for path in files]
    with peers.StoreScp(folder=tmp_path / "scp", options=("+xe",)) as peer:
        there = destination(peer.port, ChildTranscoder(scratch=spool.scratch), ae_title="STORESCP")
        outcomes = send(there, batch)
        there.close()
        received = peer.received()
    assert len({d.instance.transfer_syntax_uid for d in batch}) >= 6  # without the shared set
    assert [path.read_bytes() for path in files] == before, "the spooled original stays as it is"
    for path, sent, outcome in zip(files, batch, outcomes, strict=True):
        assert isinstance(outcome, Delivered), (path.name, outcome)
        here, arrived = read(path), read(received[sent.instance.sop_instance_uid])
        if here.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:  # nothing compressed, so it takes that as it is
            assert outcome == Delivered()
            continue
        assert "sent uncompressed: STORESCP does not take" in outcome.note
        assert arrived.file_meta.TransferSyntaxUID == EXPLICIT
        same_image(here, arrived, path)


def same_image(here: Dataset, arrived: Dataset, path: Path) -> None:
    for element in here:
        if element.keyword in CHANGED or element.VR in ("OW", "UN") or element.tag.is_private:
            continue
        assert arrived[element.tag] == element, (path.name, element.keyword)
    assert arrived.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL")
    plugin = "pillow" if here.file_meta.TransferSyntaxUID == JPEGBaseline8Bit else ""
    expected, found = pixel_array(here, decoding_plugin=plugin), arrived.pixel_array
    assert (found.shape, found.dtype.itemsize) == (expected.shape, expected.dtype.itemsize), path.name
    assert np.array_equal(found, expected), path.name


@pytest.mark.parametrize("path", colours(), ids=lambda path: path.name)
def test_colours_are_what_they_were(path: Path, tmp_path: Path) -> None:
    transcode(path, tmp_path / "out.dcm")
    here, arrived = read(path), read(tmp_path / "out.dcm")
    assert (arrived.PhotometricInterpretation, arrived.PlanarConfiguration) == ("RGB", 0)
    if "no_color_transform" not in path.name:  # pydicom with pillow takes Adobe's RGB for YCbCr; see the next test
        same_image(here, arrived, path)
    assert arrived.SOPInstanceUID == here.SOPInstanceUID
    assert arrived.get("LossyImageCompression") == here.get("LossyImageCompression")


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("path", [p for p in colours() if "J2K" not in p.name], ids=lambda path: path.name)
def test_dcmtk_decodes_to_the_same_bytes(path: Path, tmp_path: Path, tool: Callable[[str], Path]) -> None:
    syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
    program = "dcmdrle" if syntax == RLELossless else "dcmdjpeg"
    tool("storescp")
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    transcode(path, tmp_path / "ours.dcm")
    assert run(program, path, tmp_path / "theirs.dcm").returncode == 0
    ours, theirs = read(tmp_path / "ours.dcm"), read(tmp_path / "theirs.dcm")
    assert np.array_equal(ours.pixel_array, theirs.pixel_array)
    assert ours.PhotometricInterpretation == theirs.PhotometricInterpretation


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("option", ["+ee", "+el", "+e1"], ids=["extended", "lossless", "lossless-sv1"])
@pytest.mark.parametrize("signed", [0, 1])
def test_twelve_bits_that_dcmtk_compressed_are_decoded_as_dcmtk_does(
    tmp_path: Path, tool: Callable[[str], Path], option: str, signed: int
) -> None:
    tool("storescp")
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmcjpeg is not installed")
    ds = read(drawn(tmp_path, "1.2.3.1", byte_count=2).path)
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 63, 61, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, signed
    across, down = np.meshgrid(np.arange(61), np.arange(63))
    ds.PixelData = (across * 33 + down * 32 - 2048 * signed).astype("<i2").tobytes()
    ds.save_as(tmp_path / "plain.dcm")
    assert run("dcmcjpeg", option, tmp_path / "plain.dcm", tmp_path / "small.dcm").returncode == 0
    assert run("dcmdjpeg", tmp_path / "small.dcm", tmp_path / "theirs.dcm").returncode == 0
    transcode(tmp_path / "small.dcm", tmp_path / "ours.dcm")
    ours, theirs = read(tmp_path / "ours.dcm"), read(tmp_path / "theirs.dcm")
    assert np.abs(ours.pixel_array.astype(int) - theirs.pixel_array).max() <= (1 if option == "+ee" else 0)
    assert (ours.BitsAllocated, ours.BitsStored, ours["PixelData"].VR) == (16, 12, "OW")


@pytest.mark.parametrize(
    "path", [p for p in storable() if "bigend" in p.name or "expb" in p.name], ids=lambda p: p.name
)
def test_words_of_big_endian_are_turned(path: Path, tmp_path: Path) -> None:
    transcode(path, tmp_path / "out.dcm")
    here, arrived = read(path), read(tmp_path / "out.dcm")
    same_image(here, arrived, path)


# ---- what decoding must and must not change


def made(tmp_path: Path, syntax: str, frames: list[bytes], **elements: object) -> Path:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.3.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = "1.2.3.4", "1.2.3.5", "TEST"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CT, "1.2.3.1"
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].is_undefined_length = True
    path = tmp_path / "made.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def rle(planes: list[bytes]) -> bytes:
    """Literal runs only. Source: PS3.5 Annex G."""
    segments = [
        b"".join(bytes([len(p[i : i + 128]) - 1]) + p[i : i + 128] for i in range(0, len(p), 128)) for p in planes
    ]
    segments = [s + b"\0" * (len(s) % 2) for s in segments]
    offsets = [64 + sum(map(len, segments[:n])) for n in range(len(segments))] + [0] * (15 - len(segments))
    return b"".join(number.to_bytes(4, "little") for number in (len(segments), *offsets)) + b"".join(segments)


PIXELS = {"Rows": 3, "Columns": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
YBR = {**PIXELS, "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 1}
PLANES = [bytes(range(n, n + 9)) for n in (0, 100, 200)]


def test_lossless_ybr_stays_ybr_because_rgb_would_be_rounded(tmp_path: Path) -> None:
    transcode(made(tmp_path, RLELossless, [rle(PLANES)], **YBR), tmp_path / "out.dcm")
    out = read(tmp_path / "out.dcm")
    assert (out.PhotometricInterpretation, out.PlanarConfiguration) == ("YBR_FULL", 0)
    assert out.PixelData == bytes(np.array([list(p) for p in PLANES], np.uint8).T.tobytes()) + b"\0", "even length"
    assert not out["PixelData"].is_undefined_length


def test_an_icon_is_decoded_too_and_offset_tables_go(tmp_path: Path) -> None:
    icon = Dataset()
    grey = {**PIXELS, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    for keyword, value in grey.items():
        setattr(icon, keyword, value)
    icon.PixelData = encapsulate([rle([PLANES[0]])])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    more = {
        "IconImageSequence": [icon],
        "ExtendedOffsetTable": b"\0" * 8,
        "ExtendedOffsetTableLengths": b"\x60" + b"\0" * 7,
    }
    transcode(made(tmp_path, RLELossless, [rle([PLANES[1]])], **grey, **more), tmp_path / "out.dcm")
    out = read(tmp_path / "out.dcm")
    assert out.PixelData == PLANES[1] + b"\0"
    assert out.IconImageSequence[0].PixelData == PLANES[0] + b"\0"
    assert "ExtendedOffsetTable" not in out
    assert "ExtendedOffsetTableLengths" not in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Rows": 5}, "pylibjpeg cannot decode it"),
        ({"NumberOfFrames": 2}, "of the 2 frames"),
        ({"Rows": 60000, "Columns": 60000, "NumberOfFrames": 9}, "larger than the 4 GiB"),
        ({"BitsAllocated": 12}, "impossible"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "no uncompressed form"),
    ],
)
def test_what_cannot_be_decoded_says_why(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = made(tmp_path, RLELossless, [rle(PLANES)], **{**YBR, **change})
    with pytest.raises(UnreadablePixels, match=words):
        transcode(path, tmp_path / "out.dcm")


@pytest.mark.parametrize("name", ["SC_rgb_small_odd_jpeg.dcm", "JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_what_is_cut_off_is_not_filled_with_grey(tmp_path: Path, name: str) -> None:
    half = cut_off(pydicom_file(name), tmp_path)
    with pytest.raises(UnreadablePixels, match="cut off"):
        transcode(half.path, tmp_path / "out.dcm")


def test_the_mark_of_adobe_changes_no_colour(tmp_path: Path) -> None:
    """libjpeg converts to RGB by itself when it sees that marker; converting once more would turn red to green."""
    plain = pydicom_file("SC_rgb_jpeg_dcmtk.dcm")
    ds = read(plain)
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"
    ds.PixelData = encapsulate([frame[:2] + adobe + frame[2:]])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "adobe.dcm")
    transcode(plain, tmp_path / "one.dcm")
    transcode(tmp_path / "adobe.dcm", tmp_path / "two.dcm")
    one, two = read(tmp_path / "one.dcm"), read(tmp_path / "two.dcm")
    assert two.PhotometricInterpretation == "RGB"
    assert np.abs(one.pixel_array.astype(int) - two.pixel_array).max() <= 2, "two ways to round"


def test_video_is_not_decoded(tmp_path: Path) -> None:
    path = made(tmp_path, "1.2.840.10008.1.2.4.102", [b"\0" * 8], **YBR)
    with pytest.raises(UnreadablePixels, match="no decoder here for MPEG-4"):
        transcode(path, tmp_path / "out.dcm")


# ---- the child


def cut_off(source: Path, folder: Path) -> Delivery:
    """A JPEG whose second half is missing; its element and its file are whole."""
    ds = read(source)
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame[: len(frame) // 2]])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(folder / "cut.dcm", enforce_file_format=True)
    return delivery(folder / "cut.dcm")


def test_a_damaged_image_fails_with_its_reason_and_the_others_pass(tmp_path: Path, spool: FileSpool) -> None:
    path = pydicom_file("SC_rgb_small_odd_jpeg.dcm")
    bad, good = cut_off(path, tmp_path), delivery(path)
    good = replace(good, instance=replace(good.instance, sop_instance_uid="1.2.3.9"))
    with scripted_scp(contexts=[(good.instance.sop_class_uid, EXPLICIT)]) as scp:
        there = destination(scp.port, ChildTranscoder(scratch=spool.scratch), keep_open_s=0)
        first, second, third = send(there, [bad, good, bad])
    assert isinstance(second, Delivered)
    for failed in (first, third):
        assert isinstance(failed, NoAcceptedContext)
        assert "in JPEG Baseline (Process 1), only uncompressed, and it cannot be decompressed" in str(failed)
        assert "cut off" in str(failed)


def transcoder(spool: FileSpool, script: str, *, time_limit_s: float = 60, memory: int = 2**32) -> ChildTranscoder:
    command = ["/bin/sh", "-c", script, sys.executable]
    return ChildTranscoder(
        scratch=spool.scratch, command=command, time_limit_s=time_limit_s, memory_byte_count_max=memory
    )


REAL = 'exec "$0" -m router.transcode "$@"'


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", r"crashed \(SIGSEGV\), 2 times"),
        ("exit 7", "ended with exit code 7, 2 times"),
        ("echo nonsense", "makes no sense, 2 times"),
        ("yes", "2 times"),
        ('echo "{\\"digest\\": 5}"', "makes no sense, 2 times"),
        ("touch $2; sleep 60", "took longer than 0.5 s, 2 times"),
    ],
)
def test_a_decoder_that_crashes_hangs_or_lies_twice_is_the_reason(spool: FileSpool, script: str, words: str) -> None:
    it = delivery(pydicom_file("MR_small_RLE.dcm"))
    child = transcoder(spool, script, time_limit_s=0.5)
    with pytest.raises(UnreadablePixels, match=words), child.uncompressed(it):
        pass


def test_a_decoder_that_crashes_once_is_asked_again(spool: FileSpool, tmp_path: Path) -> None:
    it = delivery(pydicom_file("MR_small_RLE.dcm"))
    script = f'[ -e "{tmp_path}/tried" ] || {{ touch "{tmp_path}/tried" "$2"; kill -KILL $$; }}; {REAL}'
    with transcoder(spool, script).uncompressed(it) as made:
        assert made.instance.transfer_syntax_uid == EXPLICIT
        assert len(dataset_bytes(made.path)) == made.instance.byte_count
        assert made.path.stat().st_mode & 0o077 == 0, "patient data"


def test_a_decompression_bomb_ends_in_the_child(spool: FileSpool, tmp_path: Path) -> None:
    huge = {**YBR, "Rows": 20000, "Columns": 20000}
    it = delivery(made(tmp_path, RLELossless, [rle(PLANES)], **huge))
    child = transcoder(spool, REAL, memory=2**26)
    with pytest.raises(UnreadablePixels, match=r"memory than is allowed|cannot decode|crashed"), child.uncompressed(it):
        pass


def test_a_full_disk_is_a_matter_of_time(spool: FileSpool) -> None:
    it = delivery(pydicom_file("MR_small_RLE.dcm"))
    child = transcoder(spool, "echo '{\"no_room\": true}'")
    with pytest.raises(TransientError, match="no room"), child.uncompressed(it):
        pass


# ---- what is proposed, and by which association


def lossless(folder: Path, uid: str, sop_class_uid: str = CT) -> Delivery:
    return drawn(folder, uid, sop_class_uid=sop_class_uid, transfer_syntax_uid=JPEGLosslessSV1, byte_count=10)


def test_a_peer_that_takes_it_compressed_gets_it_untouched(tmp_path: Path) -> None:
    with scripted_scp(contexts=[(CT, JPEGLosslessSV1), (CT, EXPLICIT)]) as scp:
        redrawn = Redrawn(tmp_path / "redrawn")
        it = lossless(tmp_path, "1.2.3.1")
        assert send(destination(scp.port, redrawn, keep_open_s=0), [it]) == [Delivered()]
        assert scp.received["1.2.3.1"] == dataset_bytes(it.path)
    assert redrawn.count == 0


@pytest.mark.parametrize("contexts", [[("1.2.840.10008.5.1.4.1.1.1", EXPLICIT)], [(CT, "1.2.840.10008.1.2")]])
def test_a_peer_that_takes_neither_is_asked_for_nothing_more(tmp_path: Path, contexts: list[tuple[str, str]]) -> None:
    with scripted_scp(contexts=contexts) as scp:
        redrawn = Redrawn(tmp_path / "redrawn")
        (outcome,) = send(destination(scp.port, redrawn, keep_open_s=0), [lossless(tmp_path, "1.2.3.1")])
    assert isinstance(outcome, NoAcceptedContext)
    assert str(outcome).startswith("SCRIPTED does not take CT Image Storage in JPEG Lossless")
    assert redrawn.count == 0


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with scripted_scp() as scp:
        redrawn = Redrawn(tmp_path / "redrawn")
        there = destination(scp.port, redrawn, keep_open_s=0, transcode=False)
        (outcome,) = send(there, [lossless(tmp_path, "1.2.3.1")])
    assert isinstance(outcome, NoAcceptedContext)


def test_sends_that_follow_each_other_share_an_association(tmp_path: Path) -> None:
    with scripted_scp() as scp:
        there = destination(scp.port, Redrawn(tmp_path / "redrawn"), keep_open_s=60)
        for number in range(4):
            (outcome,) = send(there, [lossless(tmp_path, f"1.2.3.{number}")])
            assert isinstance(outcome, Delivered)
        assert scp.association_count == 1
        there.close()


def test_a_parked_association_on_which_it_was_never_proposed_is_no_reason_to_decode(tmp_path: Path) -> None:
    with scripted_scp(contexts=[(CT, JPEGLosslessSV1), (CT, EXPLICIT)]) as scp:
        redrawn = Redrawn(tmp_path / "redrawn")
        there = destination(scp.port, redrawn, keep_open_s=60)
        assert send(there, [drawn(tmp_path, "1.2.3.1")]) == [Delivered()]
        assert send(there, [lossless(tmp_path, "1.2.3.2")]) == [Delivered()]
        there.close()
    assert redrawn.count == 0


def test_both_contexts_of_an_instance_are_counted(tmp_path: Path) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts][:100]
    with scripted_scp(contexts=[(sop_class_uid, EXPLICIT) for sop_class_uid in classes]) as scp:
        batch = [lossless(tmp_path, f"1.2.3.{n}", uid) for n, uid in enumerate(classes)]
        there = destination(scp.port, Redrawn(tmp_path / "redrawn"))
        assert all(isinstance(outcome, Delivered) for outcome in send(there, batch))
        there.close()
        assert scp.association_count == 2
        assert scp.order == [f"1.2.3.{n}" for n in range(100)]


def test_a_peer_that_goes_while_we_decode_is_called_again_and_no_instance_is_blamed(tmp_path: Path) -> None:
    with scripted_scp() as scp:
        redrawn = Redrawn(tmp_path / "redrawn", lambda: hang_up(scp))
        there = destination(scp.port, redrawn, keep_open_s=0)
        outcomes = send(there, [lossless(tmp_path, "1.2.3.1"), lossless(tmp_path, "1.2.3.2")])
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert redrawn.count == 2


def hang_up(scp: ScriptedScp) -> None:
    """Ends every association, and returns when the peer has certainly been told."""
    for association in scp._ae.active_associations:
        association.abort()
        association.join(10)
