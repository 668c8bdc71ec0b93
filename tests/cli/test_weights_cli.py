"""`mmpt weights`: the manifest, local copies, and transfers from a mirror of this machine."""

import hashlib
import http.server
import io
import json
import re
import threading
from pathlib import Path

import pytest
import torch

from mmpt.api.capability import SYSTEMS
from mmpt.api.weights import MANIFEST, published
from mmpt.api.weights_fetch import check_mirror
from mmpt.utils.errors import MMPTError
from mmpt_cli.weights import main


@pytest.fixture
def mirror(tmp_path):
    """A server of ``content``: name -> bytes; ``limit`` cuts answers, ``moved`` leads elsewhere, ``asked`` is a log."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server = self.server
            name = self.path.rsplit("/", 1)[-1]
            server.asked.append((self.path, self.headers.get("Range")))
            if server.moved:
                self.send_response(302)
                self.send_header("Location", server.moved)
                self.end_headers()
                return
            if name not in server.content:
                self.send_error(404)
                return
            content, start = server.content[name], 0
            given = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if given and server.ranges:
                start = int(given[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:][: server.limit])

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.asked, server.limit, server.moved, server.ranges = {}, [], None, None, True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/some/where"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def weights(count: int = 3) -> bytes:
    file = io.BytesIO()
    torch.save({f"layer.{number}": torch.full((50, 50), float(number)) for number in range(count)}, file)
    return file.getvalue()


def test_the_list_has_every_system_and_invents_no_numbers(capsys):
    assert main(["list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {system for entry in entries for system in entry["systems"]} == set(SYSTEMS)
    assert len({entry["name"] for entry in entries}) == len(entries)
    assert all(entry["sha256"] is None and entry["size"] is None for entry in entries)  # none was published
    assert all(entry["source"] and entry["read_by"] for entry in entries)
    gone = {entry["name"] for entry in entries if entry["host_gone"]}
    assert {"s3d", "merlot", "reserve-base"} <= gone and not {"violet", "lavender"} & gone
    assert main(["list", "--system", "VIOLET"]) == 0
    assert "ckpt_violet_pretrain.pt" in (shown := capsys.readouterr().out) and "merlot/" not in shown
    assert main(["list", "--system", "VIOLETT"]) == 2
    assert "Did you mean 'VIOLET'" in capsys.readouterr().err


def test_what_nobody_published_is_called_unknown(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert listed.count("  size        unknown\n") == listed.count("  sha256      unknown\n") == len(published())
    for command in (["--json"], ["--json", "list"], ["list", "--json"]):
        assert main(command) == 0
        entries = json.loads(capsys.readouterr().out)
        assert len(entries) == len(published())


def test_the_manifest_has_a_place_for_every_size_and_checksum():
    import yaml

    entries = yaml.safe_load(MANIFEST.read_text())["files"]
    assert all({"size", "sha256"} <= set(entry) for entry in entries)


def test_a_mirror_that_is_no_folder_is_named(tmp_path, capsys):
    assert main(["fetch", "lavender", "--mirror", str(tmp_path / "nope"), "--root", str(tmp_path / "root")]) == 2
    shown = capsys.readouterr().err
    assert f"{tmp_path / 'nope'}: there is no such folder" in shown and "lavender.pt" in shown
    assert not (tmp_path / "root").exists()


def test_the_page_of_the_folder_has_the_places_of_the_manifest():
    page = Path("pretrained_models/README.md").read_text()
    for entry in published():
        assert f"`{entry.name}`" in page
        for file in entry.files:
            assert f"`{file}`" in page, file


def test_verify_tells_whole_files_from_damaged_and_foreign_ones(tmp_path, capsys):
    (tmp_path / "lavender.pt").write_bytes(weights())
    (tmp_path / "ckpt_violet_pretrain.pt").write_bytes(weights()[:-300])
    (tmp_path / "s3d_howto100m.pth").write_bytes(weights())
    (tmp_path / "merlot").mkdir()
    (tmp_path / "merlot/encoder.json").write_text("{")
    assert main(["verify", "--root", str(tmp_path), "--json"]) == 1
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["lavender"]["fault"] == "" and found["lavender"]["tensors"] == 3
    assert found["lavender"]["parameters"] == 3 * 2500
    assert found["lavender"]["sha256"] == hashlib.sha256(weights()).hexdigest()
    assert not found["lavender"]["compared"]
    assert "ckpt_violet_pretrain.pt" in found["violet"]["fault"]
    assert "holds 3 tensors" in found["s3d"]["fault"]  # a file of something else
    assert "encoder.json" in found["merlot-tokenizer"]["fault"]
    assert main(["verify", "lavender", "--root", str(tmp_path)]) == 0
    assert main(["verify", "lavendar", "--root", str(tmp_path)]) == 2
    assert "Did you mean 'lavender'" in capsys.readouterr().err


def test_a_transfer_that_broke_off_goes_on_where_it_stopped(tmp_path, mirror, capsys):
    content = mirror.content["lavender.pt"] = weights()
    mirror.limit = 1000
    command = ["fetch", "lavender", "--mirror", mirror.url, "--root", str(tmp_path)]
    assert main(command) == 2
    assert f"1000 of {len(content)} bytes" in capsys.readouterr().err
    assert not (tmp_path / "lavender.pt").exists()
    mirror.limit = None
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tensors"] == 3
    assert (tmp_path / "lavender.pt").read_bytes() == content
    assert [given for _, given in mirror.asked] == [None, "bytes=1000-"]
    assert {path.name for path in tmp_path.iterdir()} == {"lavender.pt"}


def test_a_mirror_without_ranges_begins_anew(tmp_path, mirror):
    content = mirror.content["lavender.pt"] = weights()
    (tmp_path / "lavender.pt.part").write_bytes(b"what another file left")
    mirror.ranges = False
    assert main(["fetch", "lavender", "--mirror", f"{mirror.url}/lavender.pt", "--root", str(tmp_path)]) == 0
    assert (tmp_path / "lavender.pt").read_bytes() == content


def test_what_is_not_the_file_does_not_get_its_place(tmp_path, mirror, capsys):
    mirror.content["lavender.pt"] = b"<html>no such bucket</html>"
    command = ["fetch", "lavender", "--mirror", mirror.url, "--root", str(tmp_path)]
    assert main(command) == 2
    assert "is not lavender" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
    mirror.content["lavender.pt"] = weights()
    assert main([*command, "--sha256", "0" * 64]) == 2
    assert "its sha256 is" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
    right = hashlib.sha256(weights()).hexdigest()
    assert main([*command, "--sha256", right.upper()]) == 0
    assert main(command) == 2  # it is there now
    assert "--force" in capsys.readouterr().err


def test_a_folder_is_a_mirror_and_a_pattern_needs_a_name(tmp_path, capsys):
    source, root = tmp_path / "mirror", tmp_path / "root"
    source.mkdir()
    (source / "ckpt_violet_msvd-qa.pt").write_bytes(weights())
    command = ["fetch", "violet-task", "--mirror", str(source), "--root", str(root)]
    assert main(command) == 2 and "--name" in capsys.readouterr().err
    for wrong in ("../ckpt_violet_x.pt", "other.pt", "ckpt_violet_/../x.pt"):
        assert main([*command, "--name", wrong]) == 2
    assert main([*command, "--name", "ckpt_violet_msvd-qa.pt"]) == 0
    assert (root / "ckpt_violet_msvd-qa.pt").read_bytes() == weights()


def test_a_mirror_that_lacks_the_file_is_named(tmp_path, mirror, capsys):
    assert main(["fetch", "lavender", "--mirror", mirror.url, "--root", str(tmp_path)]) == 2
    assert "404" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place",
    [
        "gs://merlot/checkpoint_4segments",
        "gs://merlotreserve/ckpts",
        "https://storage.googleapis.com/merlot/checkpoint_4segments",
        "https://STORAGE.googleapis.com//merlotreserve/ckpts/base",
        "http://storage.googleapis.com/%6derlot/x",
        "https://merlot.storage.googleapis.com/x",
    ],
)
def test_nothing_is_taken_from_buckets_that_are_gone(tmp_path, place, capsys):
    assert main(["fetch", "merlot", "--mirror", place, "--root", str(tmp_path)]) == 2
    assert "reported to be gone" in capsys.readouterr().err


def test_other_schemes_are_refused_and_other_buckets_are_not():
    for place in ("ftp://example.org/x", "data://x", "gs://mine/x"):
        with pytest.raises(MMPTError):
            check_mirror(place)
    check_mirror("https://storage.googleapis.com/mine/merlot/x")
    check_mirror("some/folder")


@pytest.mark.parametrize("place", ["https://storage.googleapis.com/merlot/x", "file:///etc/hostname"])
def test_a_mirror_cannot_lead_to_them_either(tmp_path, mirror, place, capsys):
    mirror.moved = place
    assert main(["fetch", "lavender", "--mirror", mirror.url, "--root", str(tmp_path)]) == 2
    assert not (tmp_path / "lavender.pt").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_files_that_belong_together_come_together(tmp_path, capsys):
    command = ["fetch", "merlot", "--mirror", "tests/data/merlot_checkpoint", "--root", str(tmp_path)]
    assert main([*command, "--sha256", "0" * 64]) == 2 and "has 2 files" in capsys.readouterr().err
    assert main(command) == 0
    folder = tmp_path / "merlot" / "checkpoint_4segments"
    assert sorted(path.name for path in folder.iterdir()) == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    capsys.readouterr()
    assert main(["verify", "merlot", "--root", str(tmp_path)]) == 1  # a small model of the tests is not the real one
    assert "holds 169 tensors" in (shown := capsys.readouterr().out) and "has 597" in shown


def test_a_link_in_place_of_a_part_is_not_written_through(tmp_path, mirror):
    mirror.content["lavender.pt"] = weights()
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "lavender.pt.part").symlink_to(tmp_path / "mine")
    assert main(["fetch", "lavender", "--mirror", mirror.url, "--root", str(tmp_path)]) == 0
    assert (tmp_path / "mine").read_bytes() == b"mine" and (tmp_path / "lavender.pt").read_bytes() == weights()


def test_stopped_while_it_is_checked_nothing_is_lost(tmp_path, mirror, monkeypatch):
    mirror.content["lavender.pt"] = weights()
    command = ["fetch", "lavender", "--mirror", mirror.url, "--root", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr("mmpt.api.weights_fetch.check_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command) == 130
    assert (tmp_path / "lavender.pt.part").read_bytes() == weights()
    assert main(command) == 0
    assert [given for _, given in mirror.asked] == [None, f"bytes={len(weights())}-"]  # nothing comes again


def test_a_part_that_is_longer_than_the_file_is_of_another(tmp_path, mirror):
    mirror.content["lavender.pt"] = weights()
    (tmp_path / "lavender.pt.part").write_bytes(weights() + b"more")
    assert main(["fetch", "lavender", "--mirror", mirror.url, "--root", str(tmp_path)]) == 0
    assert (tmp_path / "lavender.pt").read_bytes() == weights()
