#!/usr/bin/env bash
# Tests a wheel as a new user has it: tests/installed.sh PYTHON WHEEL. Makes a fresh environment, and a folder with the
# tests and the documents, from which nothing of this checkout can be imported.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/project"
if [ -d ../shared ]; then ln -s "$(realpath ../shared)" "$place/shared"; fi # real tokenizers, where present
cp -r tests docs README.md MODEL_CARD.md Makefile pyproject.toml "$place/project"
"$1" -m venv "$place/environment"
"$place/environment/bin/python" -m pip install --quiet "$2[test]"
VLADVA_CLIP_WHEEL=$(realpath "$2")
export VLADVA_CLIP_WHEEL
cd "$place/project"
../environment/bin/python -m pytest -m "not wide" \
    tests/test_documented_commands.py tests/test_documented_snippets.py \
    tests/vladva_clip/test_install.py tests/vladva_clip/commands
