"""``mmpt app``: a web page for trained models, on this machine alone unless told otherwise."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmpt_cli.run_folders import exit_code

__all__ = ["build_parser", "main"]

_EXAMPLE = """\
examples:
  mmpt app --model demo=runs/demo/vtt --demo-videos data/demo/videos
  mmpt app --model zero-shot=runs/demo --model fine-tuned=runs/demo/vtt --port 0 --json
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="mmpt app", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", default=[], metavar="NAME=SOURCE", help="a model; may be repeated")
    parser.add_argument("--demo-videos", metavar="DIR", help="folder of videos to pick from")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=7860, help="0: any free one")
    parser.add_argument("--max-upload-mb", type=int, default=200)
    parser.add_argument("--max-seconds", type=float, default=600)
    parser.add_argument("--json", action="store_true", help="print one JSON document that says what is served where")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; return the exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: _serve(options))


def _serve(options: argparse.Namespace) -> int:
    from mmpt.api.page.app import build_app, listen
    from mmpt.api.page.contents import Contents, load_models, named_sources
    from mmpt.api.page.shelf import Shelf
    from mmpt.utils.extras import require

    uvicorn = require("uvicorn", "app")
    listening = listen(options.host, options.port)
    models, failures = load_models(named_sources(options.model), device=options.device)
    folder = options.demo_videos
    demo = {path.name: path for path in sorted(Path(folder).iterdir()) if path.is_file()} if folder else {}
    with tempfile.TemporaryDirectory(prefix="mmpt-page-") as uploads:
        shelf = Shelf(uploads, *([folder] if folder else []))
        contents = Contents(models, shelf, demo, failures, options.max_seconds, options.max_upload_mb)
        app = build_app(contents, Path(uploads), options.host)
        address = f"http://{options.host}:{listening.getsockname()[1]}"
        loaded = {name: f"{pipeline.system} on {pipeline.device}" for name, pipeline in models.items()}
        if options.json:
            print(json.dumps({"address": address, "models": loaded, "failures": failures}), flush=True)
        else:
            print(f"{address}\n" + "\n".join(f"  {name}: {what}" for name, what in loaded.items()), flush=True)
        print("\n".join(f"not loaded: {line}" for line in failures), end="", file=sys.stderr)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
