"""Published packages of Vega -> `src/headgrid/web/cdn.json`, the pinned files of the light page.

Run ``python tests/pin_vega.py`` after a new vl-convert: it asks the npm registry for
exactly the versions named here, and writes the hash of each build file.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "src" / "headgrid" / "web" / "cdn.json"

#: Where the light page finds Vega: the published build files of the npm registry.
CDN = "https://cdn.jsdelivr.net/npm/"
#: Build file of each library, in the order in which a page loads them.
BUILDS = {
    "vega": "build/vega.min.js",
    "vega-lite": "build/vega-lite.min.js",
    "vega-embed": "build/vega-embed.min.js",
}
#: Version of Vega-Lite as a specification's schema names it -> what draws it.
VERSIONS = {
    "6.1": {"vega": "6.2.0", "vega-lite": "6.1.0", "vega-embed": "7.0.2"},
    "6.4": {"vega": "6.2.0", "vega-lite": "6.4.1", "vega-embed": "7.0.2"},
}


def find_address(name, version):
    """Return where the light page finds a library."""
    return f"{CDN}{name}@{version}/{BUILDS[name]}"


def hash_build(name, version):
    """Return the integrity hash of a library's published build file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{name}@{version}"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            content = archive.extractfile(f"package/{BUILDS[name]}").read()
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode('ascii')}"


def make_table():
    """Return the text of the table, from the registry."""
    table = {
        key: {find_address(*library): hash_build(*library) for library in row.items()}
        for key, row in VERSIONS.items()
    }
    return json.dumps(table, indent=1) + "\n"


if __name__ == "__main__":
    TABLE.write_text(make_table(), encoding="utf-8")
