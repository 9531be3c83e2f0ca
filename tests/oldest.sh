#!/usr/bin/env bash
# Tries the oldest stated dependencies together, on Python 3.11: tests/oldest.sh [PYTHON]. Not part of CI (it takes minutes).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"${1:-python3.11}" -m venv "$environment"
"$environment/bin/pip" install --quiet --constraint tests/oldest.txt --editable ".[test]"
"$environment/bin/python" -m pytest -n 2 --dist loadfile -m "not slow and not wide"
