"""Renders a Helm chart with Helm's own engine, and checks what comes out.

    chart.py CHART VALUES [VALUES…]

Values come from files (YAML); each further one overrides those before it. The
chart must lint without a warning, and each object it makes must fit the strict
schemas of the oldest and the newest Kubernetes that we know, except those of
custom resources, which have none here. Prints the objects as a JSON list; exits
with 1 and the reason otherwise.
"""

import json
import sys

import helm_python
import kubernetes_validate
import yaml

# The chart needs 1.30; these are whatever this version of the schemas has.
KUBERNETES = ["1.30", "1.37"]
CUSTOM = {"monitoring.coreos.com/v1"}
WARNING = 2


def merged(base: dict, over: dict) -> dict:
    both = dict(base)
    for key, value in over.items():
        old = both.get(key)
        is_tree = isinstance(old, dict) and isinstance(value, dict)
        both[key] = merged(old, value) if is_tree else value
    return both


def values_of(paths: list[str]) -> dict:
    values: dict = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            values = merged(values, yaml.safe_load(file) or {})
    return values


def lint(chart: str, values: dict) -> None:
    report = helm_python.lint(chart, values, strict=True)
    bad = [message for message in report["messages"] if message["severity"] >= WARNING]
    if bad or report["errors"]:
        raise SystemExit(f"lint: {bad or report['errors']}")


def render(path: str, values: dict) -> list[dict]:
    with helm_python.Chart.load(path) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="release", namespace="apps")
    objects = []
    for name, text in sorted(rendered.items()):
        if name.endswith(".yaml"):
            objects += [document for document in yaml.safe_load_all(text) if document]
    return objects


def validate(document: dict) -> None:
    if document["apiVersion"] in CUSTOM:
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)


def main() -> None:
    chart, *paths = sys.argv[1:]
    values = values_of(paths)
    try:
        objects = render(chart, values)
    except helm_python.HelmError as error:
        raise SystemExit(str(error)) from error
    lint(chart, values)
    for document in objects:
        try:
            validate(document)
        except kubernetes_validate.ValidationError as error:
            raise SystemExit(f"{document['kind']}: {error.message}") from error
    json.dump(objects, sys.stdout)


if __name__ == "__main__":
    main()
