"""Resolve an experiment's options and store them as its `config.yaml`.

The options are a YAML file's, then the overrides on the command line. Without --config: those of
the experiment if it is there and --keep is given, else egs/<corpus>/conf/<recipe>.yaml, else
<recipe>/conf/default.yaml. Prints what the shell needs to know: the kind of data, and the folder
that stage 3 makes of it, if any.
"""

import argparse
import json
from pathlib import Path

from plateau import config
from plateau.config import UserError
from plateau.training.experiment import Experiment, default_config, options_class


def check_kept(experiment: Experiment, options: type) -> None:
    """See that an experiment has all of its options: defaults would make another model of it.

    Raises:
        UserError: its config.yaml lacks sections, or is gone though there are checkpoints.
    """
    advice = (
        "\nname a file that has its options (--config FILE), or another experiment (--exp NAME)"
    )
    path = experiment.config
    if not path.exists():
        checkpoints = experiment.final_model.parent
        if checkpoints.exists():
            raise UserError(f"{path}: no such file, though {checkpoints} is there{advice}")
        return
    missing = config.missing_sections(options, config.read_yaml(path) or None)
    if missing:
        raise UserError(f"{path}: without {', '.join(missing)}{advice}")


def main() -> None:
    """Read the command line and write the configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--exp-dir", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--dev-set")
    parser.add_argument("--test-sets", help="separated by spaces or commas")
    parser.add_argument("--keep", action="store_true", help="start from the experiment's options")
    parser.add_argument("overrides", nargs="*", metavar="field.name=value")
    args = parser.parse_args()

    experiment = Experiment(args.exp_dir)
    kind = options_class(args.recipe)
    if args.keep and args.config is None:
        check_kept(experiment, kind)
    if args.config is not None:
        source = args.config
    elif args.keep and experiment.config.exists():
        source = experiment.config
    else:
        source = default_config(args.corpus, args.recipe)
    if any(o.startswith("data_dir=") for o in args.overrides):
        raise UserError("data_dir follows from --corpus; put your data under data/NAME")
    overrides = [*args.overrides, f"data_dir=data/{args.corpus}"]
    if args.dev_set is not None:
        overrides.append(f"dev_set={args.dev_set}")
    if args.test_sets is not None:
        overrides.append(f"test_sets={json.dumps(args.test_sets.replace(',', ' ').split())}")
    options = config.load(kind, source, overrides=overrides)
    config.save(options, experiment.config)
    print(options.kind, options.prepared)


if __name__ == "__main__":
    with config.user_errors():
        main()
