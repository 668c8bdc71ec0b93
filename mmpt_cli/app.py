"""A web page for trained models: timelines, search, questions. On this machine alone unless told otherwise."""

import argparse
import json
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.utils.errors import ConfigError
from mmpt_cli.parsers import Parser
from mmpt_cli.run_folders import exit_code

if TYPE_CHECKING:
    from mmpt.api.page.contents import Contents

__all__ = ["build_parser", "main"]

_EXAMPLE = """\
examples:
  mmpt app --model runs/demo/vtt --demo-videos data/demo/videos
  mmpt app --model before=runs/demo --model after=runs/demo/vtt --index my_index --open
  mmpt app --model runs/demo/vtt --allow-host lab.example --root-path /mmpt
"""
_OPEN = (
    "warning: {host} may be reached from elsewhere: whoever reaches it can use the page, without a password, and it "
    "answers under any name. Name those it has, and no others are answered: --allow-host NAME"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(prog="mmpt app", description=__doc__, epilog=_EXAMPLE)
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="[NAME=]SOURCE", help="a model; may be repeated")
    add("--index", action="append", default=[], metavar="[NAME=]DIR", help="an index of mmpt index; may be repeated")
    add(
        "--index-root",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="where an index's videos are now, and may be played from; once for each of its folders, in order",
    )
    add("--demo-videos", metavar="DIR", help="folder of videos to pick from")
    add("--device", help="cpu, cuda or cuda:N; by default a GPU if there is one")
    add("--s3d-weights", metavar="FILE", help="local copy of s3d_howto100m.pth, for models of S3D features")
    add("-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="set a config key of the models")
    server = parser.add_argument_group("server")
    add = server.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    add("--port", type=int, default=7860, help="0: any free one (7860)")
    add("--open", action="store_true", dest="open", help="open the page in a browser")
    add("--no-browser", action="store_false", dest="open", help="do not (default)")
    add("--allow-host", action="append", default=[], metavar="NAME", help="name of a reverse proxy; may be repeated")
    add("--root-path", default="", metavar="/PATH", help="path below which a reverse proxy shows the page")
    limits = parser.add_argument_group("limits")
    add = limits.add_argument
    add("--max-seconds", type=float, default=600, help="of a video that is uploaded or asked about (600)")
    add("--max-upload-mb", type=int, default=200, help="of an upload (200)")
    add("--max-uploads", type=int, default=100, help="files that are kept; a visitor's oldest go first (100)")
    add("--max-total-mb", type=int, default=2000, help="of all files that are kept (2000)")
    add("--keep-minutes", type=float, default=120, help="how long uploads are kept (120)")
    parser.add_argument("--json", action="store_true", help="print one JSON document: what is served where")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; return the exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _serve(options), as_json=options.json)


def _serve(options: argparse.Namespace) -> int:
    _check(options)
    from mmpt.api.page.app import LOCAL_HOSTS, build_app, listen
    from mmpt.api.page.sweeping import swept
    from mmpt.utils.extras import require

    uvicorn = require("uvicorn", "app")
    listening = listen(options.host, options.port)
    with tempfile.TemporaryDirectory(prefix="mmpt-page-") as folder:
        uploads = Path(folder)
        contents = _contents(options, uploads)
        app = build_app(contents, uploads, options.host, options.allow_host, options.root_path)
        named = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{named}:{listening.getsockname()[1]}"
        _tell(address, contents, options.json)
        if options.host not in LOCAL_HOSTS and not options.allow_host:
            print(_OPEN.format(host=options.host), file=sys.stderr)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        if options.open:
            threading.Thread(target=_open_when_started, args=(server, address), daemon=True).start()
        with swept(app.room):
            server.run(sockets=[listening])
    return 0


def _check(options: argparse.Namespace) -> None:
    if not options.model and not options.index:
        raise ConfigError("nothing to show: give --model SOURCE, --index DIR, or several of them")
    for name in ("max_seconds", "max_upload_mb", "max_uploads", "max_total_mb", "keep_minutes"):
        if not getattr(options, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')}: must be positive")
    if options.max_total_mb < options.max_upload_mb:
        raise ConfigError(f"--max-total-mb {options.max_total_mb}: less than one upload, --max-upload-mb")
    if options.demo_videos and not Path(options.demo_videos).is_dir():
        raise ConfigError(f"--demo-videos {options.demo_videos}: no such folder")
    if options.root_path and not options.root_path.startswith("/"):
        raise ConfigError(f"--root-path {options.root_path}: must begin with a slash")


def _contents(options: argparse.Namespace, uploads: Path) -> "Contents":
    from mmpt.api.page.contents import Contents, Limits, load_models, named_roots, named_sources, open_indexes
    from mmpt.api.page.shelf import Shelf
    from mmpt.store.video_list import VIDEO_SUFFIXES

    loading = {"device": options.device, "s3d_weights": options.s3d_weights, "overrides": options.override}
    models, failures = load_models(named_sources(options.model), **loading)
    sources = named_sources(options.index, "--index")
    roots = named_roots(options.index_root, list(sources))
    indexes, closed = open_indexes(sources, models, roots, **loading)
    if not models:
        raise ConfigError("nothing could be loaded: " + "; ".join(map(str, failures + closed)))
    shown = [Path(options.demo_videos)] if options.demo_videos else []
    demo = {
        str(path.relative_to(folder)): path
        for folder in shown
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    }
    shelf = Shelf(uploads, *shown, *(root for index in indexes.values() for root in index.roots))
    limits = Limits(
        options.max_seconds, options.max_upload_mb, options.max_uploads, options.keep_minutes, options.max_total_mb
    )
    return Contents(models, shelf, demo, indexes, failures + closed, limits)


def _tell(address: str, contents: "Contents", as_json: bool) -> None:
    models = {name: f"{pipeline.system} on {pipeline.device}" for name, pipeline in contents.models.items()}
    indexes = {name: str(index.folder) for name, index in contents.indexes.items()}
    folders = list(contents.shelf.roots[1:])
    told = {"address": address, "models": models, "indexes": indexes, "folders": folders}
    if as_json:
        print(json.dumps({**told, "failures": list(map(str, contents.failures))}), flush=True)
    else:
        lines = [f"  model {name}: {what}" for name, what in models.items()]
        lines += [f"  index {name}: {len(index)} clips" for name, index in contents.indexes.items()]
        lines += [f"  plays videos below {folder}" for folder in folders]
        print("\n".join([address, *lines]), flush=True)
    for line in contents.failures:
        print(f"not loaded: {line}", file=sys.stderr)


def _open_when_started(server: Any, address: str) -> None:
    while not server.started and not server.should_exit:
        time.sleep(0.05)
    webbrowser.open(address)


if __name__ == "__main__":
    sys.exit(main())
