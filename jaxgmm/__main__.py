"""The command line, ``jaxgmm compare | fit | select | study | predict | sample | data``.

Also as ``python -m jaxgmm``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from jaxgmm.files import check_folder, write

if TYPE_CHECKING:
    import pandas as pd

    from jaxgmm import Fit, LatentModel, Mixture
    from jaxgmm.datasets import Dataset

Kept = TypeVar("Kept")

_BAD_INPUT, _INTERRUPTED = 2, 130
_COMMANDS = "{compare,fit,select,study,predict,sample,data}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for bad input."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.version:
        from importlib.metadata import version

        print("jaxgmm", version("jaxgmm"))
        return 0
    if args.command is None:
        parser.error("needs a command: compare, fit, select, study, predict, sample or data")
    try:
        with _interruptible():
            args.run(args)
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader (``| head``) has gone.
        _leave_unsaid()
    except (ValueError, TypeError, OSError) as error:
        print(_one_line(error, args), file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _leave_unsaid()
        return _BAD_INPUT
    return 0


def _leave_unsaid() -> None:
    """Nobody takes what is left of the output, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the process at once: unwinding through a running compilation may crash."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _one_line(error: Exception, args: argparse.Namespace) -> str:
    """The error, with arguments called as they were written."""
    from jaxgmm._checks import reworded

    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    else:
        options = (
            "columns",
            "sep",
            "decimal",
            "prior",
            "method",
            "criterion",
            "criteria",
            "methods",
            "given",
        )
        written = {name: f"--{name}" for name in options}
        written["structure"] = "--structures" if args.command == "select" else "--covariance"
        message = reworded(str(error), written | {"x": str(getattr(args, "data", None) or "x")})
    return f"jaxgmm: error: {' '.join(message.split())}"


# -- arguments ---------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """One line and the exit code, without the usage."""
        self.exit(_BAD_INPUT, f"jaxgmm: error: {' '.join(message.split())} (see {self.prog} -h)\n")


def _count(least: int, below: int | None = None) -> Callable[[str], int]:
    def count(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"needs a whole number, found {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, found {value}")
        if below is not None and value >= below:
            raise argparse.ArgumentTypeError(f"must be below {below}, found {value}")
        return value

    return count


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxgmm",
        description="Gaussian mixtures by EM, beside the posterior of the very same model.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar=_COMMANDS)

    compare = commands.add_parser(
        "compare",
        help="EM, posterior and verdict, with a report",
        description="Fit by EM, sample the posterior of the same model, print the verdict and "
        "write report.html (and .md, .json), the figures and posterior.nc; or do so with a fit "
        "and a posterior that were kept.",
    )
    _add_model_arguments(compare, needed=False)
    compare.add_argument("--fit", metavar="FILE", help="a fit that was kept, in place of DATA")
    compare.add_argument("--posterior", metavar="FILE", help="what Posterior.save has written")
    compare.add_argument("--method", default="nuts", help="sampler (default: nuts)")
    compare.add_argument("--chains", type=_count(1), default=4, metavar="N", help="default: 4")
    compare.add_argument(
        "--draws", type=_count(4), default=1000, metavar="N", help="draws per chain (default: 1000)"
    )
    compare.add_argument(
        "--out", metavar="DIR", help="folder to write (default: named after the data, NAME_report)"
    )
    compare.add_argument(
        "--details", action="store_true", help="print every check and parameter too"
    )
    compare.set_defaults(run=_compare)

    fit = commands.add_parser(
        "fit",
        help="EM only",
        description="Fit by EM and print parameters, criteria and what the restarts found.",
    )
    _add_model_arguments(fit, needed=True)
    fit.add_argument("--json", metavar="FILE", help="also write the fit as JSON")
    fit.add_argument("--save", metavar="FILE", help="also keep the fit, for predict and sample")
    fit.set_defaults(run=_fit)

    select = commands.add_parser(
        "select",
        help="structures and numbers of components, with a report",
        description="Fit every structure with every number of components by EM, print the models "
        "by a criterion, the best first, and write select.html (and .md, .json, .csv) and "
        "criteria.png.",
    )
    _add_data_arguments(select, restarts=16)
    select.add_argument(
        "-k",
        type=_counts,
        default="1:9",
        metavar="K",
        help="such as 3, 1:9 or 1,2,4 (default: 1:9)",
    )
    select.add_argument(
        "--structures",
        default="all",
        metavar="A,B",
        help="such as VVV,EEE,diag; or all (default), mclust's fourteen, two in one dimension",
    )
    select.add_argument("--criterion", default="bic", help="what decides (default: bic)")
    select.add_argument(
        "--criteria", default="bic,icl,aic", metavar="A,B", help="columns (default: bic,icl,aic)"
    )
    select.add_argument(
        "--prior", default="none", help="none (default), as in mclust, or fraley-raftery"
    )
    select.add_argument(
        "--out", metavar="DIR", help="folder to write (default: named after the data, NAME_select)"
    )
    select.set_defaults(run=_select)

    study = commands.add_parser(
        "study",
        help="what methods say of a known truth, with a report",
        description="Draw data sets from a known truth, fit each by every method, print how far "
        "their intervals and errors are right, and write study.html (and .md, .json, .csv) and "
        "the figures. Run again with the same arguments, it goes on where it was interrupted.",
    )
    study.add_argument(
        "fit",
        metavar="TRUTH",
        help="one, separated, touching or overlapping; or what fit --save or --json has written",
    )
    study.add_argument(
        "-n",
        type=_count(2),
        metavar="N",
        help="rows of a data set (default: those of the fit; 200)",
    )
    study.add_argument(
        "--datasets", type=_count(2), default=1000, metavar="N", help="default: 1000"
    )
    study.add_argument(
        "--methods",
        default="em,em-sandwich",
        metavar="A,B",
        help="em, em-sandwich, bootstrap, bootstrap-weighted, bootstrap-parametric, laplace, vb, "
        "gibbs, nuts, smc, svi (default: em,em-sandwich)",
    )
    study.add_argument(
        "--select",
        type=_counts,
        default=[],
        metavar="K",
        help="numbers of components that criteria choose from, such as 1:4 (default: none)",
    )
    study.add_argument(
        "--criteria", default="bic,icl,aic", metavar="A,B", help="which (default: bic,icl,aic)"
    )
    study.add_argument(
        "--prior", default="none", help="of these models: none (default) or fraley-raftery"
    )
    _add_given_arguments(study)
    _add_running_arguments(study, restarts=16)
    study.add_argument(
        "--out", metavar="DIR", help="folder to write (default: named after the truth, NAME_study)"
    )
    study.set_defaults(run=_study)

    predict = commands.add_parser(
        "predict",
        help="labels and probabilities of rows under a fit that was kept",
        description="Print, as CSV, the most probable component of each row, its probabilities "
        "and the log density of the row.",
    )
    predict.add_argument("fit", metavar="FIT", help="what fit --save has written")
    _add_reading_arguments(predict)
    predict.set_defaults(run=_predict)

    sample = commands.add_parser(
        "sample",
        help="rows drawn from a fit that was kept",
        description="Print rows drawn from the fitted mixture, as CSV.",
    )
    sample.add_argument("fit", metavar="FIT", help="what fit --save has written")
    sample.add_argument(
        "-n", type=_count(1), metavar="N", help="how many (default: those of --given; 100)"
    )
    _add_given_arguments(sample)
    _add_seed(sample)
    sample.set_defaults(run=_sample)

    data = commands.add_parser(
        "data",
        help="the bundled data sets",
        description="List the bundled data sets, or print one as CSV.",
    )
    data.add_argument("name", nargs="?", metavar="NAME", help="data set to print")
    data.set_defaults(run=_data)
    return parser


def _counts(text: str) -> list[int]:
    """``3``, ``1:9`` (both ends included) or ``1,2,4``."""
    one = _count(1)
    counts: list[int] = []
    for part in text.split(","):
        low, colon, high = part.partition(":")
        first = one(low)
        last = one(high) if colon else first
        if last < first:
            raise argparse.ArgumentTypeError(f"must not fall, found {part!r}")
        counts += range(first, last + 1)
    return list(dict.fromkeys(counts))


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=_count(0, below=2**32), default=0, metavar="S", help="default: 0"
    )


def _add_reading_arguments(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    parser.add_argument(
        "data",
        nargs=None if needed else "?",
        metavar="DATA",
        help="a bundled name, or a file: CSV (also .gz), Parquet",
    )
    _add_file_arguments(parser)


def _add_given_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--given",
        metavar="DATA",
        help="rows with the columns that are given and not drawn, such as covariates",
    )
    _add_file_arguments(parser)


def _add_file_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--columns",
        metavar="A,B",
        help="columns by name or by position from 0; a name with a comma in double quotes "
        "(default: all)",
    )
    add("--sep", metavar="C", help="separator of a text file, or tab (default: as it looks)")
    add("--decimal", metavar="C", help="decimal point of a text file (default: as it looks)")
    add(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a text file names the columns (default: as it looks)",
    )


def _add_data_arguments(
    parser: argparse.ArgumentParser, restarts: int, needed: bool = True
) -> None:
    _add_reading_arguments(parser, needed)
    _add_running_arguments(parser, restarts)


def _add_running_arguments(parser: argparse.ArgumentParser, restarts: int) -> None:
    _add_seed(parser)
    add = parser.add_argument
    add(
        "--restarts",
        type=_count(1),
        default=restarts,
        metavar="N",
        help=f"EM starts (default: {restarts})",
    )
    add("--float32", action="store_true", help="compute in single precision")
    add(
        "--no-cache",
        action="store_true",
        help="compile anew, and keep nothing for the next time (see docs/command-line.md)",
    )
    add("--quiet", action="store_true", help="no progress on stderr")


def _add_model_arguments(parser: argparse.ArgumentParser, needed: bool) -> None:
    _add_data_arguments(parser, restarts=64, needed=needed)
    add = parser.add_argument
    add("-k", type=_count(1), required=needed, metavar="K", help="number of components")
    add(
        "--covariance",
        default="full",
        help="full (default), tied, diag, spherical, or a code of mclust's, such as VEE",
    )
    add("--prior", default="fraley-raftery", help="fraley-raftery (default) or, for fit, none")


# -- commands ----------------------------------------------------------------------


def _compare(args: argparse.Namespace) -> None:
    import jax

    import jaxgmm as jg
    from jaxgmm._checks import check_name

    given = [value is not None for value in (args.data, args.k, args.fit, args.posterior)]
    if given == [False, False, True, True]:
        _compare_kept(args)
        return
    if given != [True, True, False, False]:
        raise ValueError("compare: needs DATA and -k, or --fit and --posterior")
    x, data, model = _prepare(args)
    check_name("method", args.method, jg.bayes.METHODS)
    model.check_samplable()
    _announce(args, data)

    key_fit, key_draws = jax.random.split(jax.random.key(args.seed))
    with _stage(args, f"EM: {args.restarts} start(s)"):
        fit = jg.fit(model, x, key=key_fit, n_init=args.restarts)
    out = Path(f"{data.name}_report" if args.out is None else args.out)
    check_folder(out)  # fails before the long part, not after it

    bar = not args.quiet and sys.stderr.isatty()
    label = f"{args.method.upper()}: {args.chains} chain(s) of {args.draws} draws, compiled first"
    with _stage(args, label, end="\n" if bar else " "):
        posterior = jg.sample(
            fit.model,
            x,
            key=key_draws,
            method=args.method,
            start=fit,
            n_chains=args.chains,
            n_draws=args.draws,
            progress=bar,
        )
    with _stage(args, "comparing"):
        verdict = jg.compare(fit, posterior)
    said = verdict.details() if args.details else verdict
    _report(args, said, lambda: verdict.save(out))


def _compare_kept(args: argparse.Namespace) -> None:
    """The verdict on results in files."""
    import jaxgmm as jg

    fit = _kept(args)
    posterior = _loaded(Path(args.posterior), jg.Posterior)
    if not args.no_cache:
        _keep_programs(args)
    name = Path(args.posterior).stem
    out = Path(f"{name}_report" if args.out is None else args.out)
    check_folder(out)
    with _stage(args, "comparing"):
        verdict = jg.compare(fit, posterior)
    said = verdict.details() if args.details else verdict
    _report(args, said, lambda: verdict.save(out))


def _fit(args: argparse.Namespace) -> None:
    import jax

    import jaxgmm as jg

    x, data, model = _prepare(args)
    _announce(args, data)
    with _stage(args, f"EM: {args.restarts} start(s)"):
        fit = jg.fit(model, x, key=jax.random.key(args.seed), n_init=args.restarts)
    print(_fit_text(fit))
    if args.save is not None:
        fit.save(args.save)
    if args.json is not None:
        path = Path(args.json)
        write(path.parent, {path.name: json.dumps(_fit_record(fit, args), indent=2) + "\n"})


def _select(args: argparse.Namespace) -> None:
    import jax

    import jaxgmm as jg
    from jaxgmm._checks import check_name
    from jaxgmm.report import CRITERIA, DECIDING

    x, data = _read(args)
    prior = None if args.prior == "none" else args.prior
    codes = args.structures.split(",") if args.structures != "all" else _all_structures(x)
    models = [jg.Mixture(jg.Gaussian(code), k, prior=prior) for code in codes for k in args.k]
    models[0].check_data(x)
    criteria = args.criteria.split(",")
    check_name("criterion", args.criterion, DECIDING)
    for one in criteria:
        check_name("criteria", one, CRITERIA)
    _announce(args, data)
    out = Path(f"{data.name}_select" if args.out is None else args.out)
    check_folder(out)  # fails before the long part, not after it

    bar = not args.quiet and sys.stderr.isatty()
    label = f"EM: {len(models)} model(s), {args.restarts} start(s) each, compiled first"
    with _stage(args, label, end="\n" if bar else " "):
        choice = jg.select(
            models,
            x,
            key=jax.random.key(args.seed),
            criterion=args.criterion,
            criteria=criteria,
            n_init=args.restarts,
            progress=bar,
        )
    _report(args, choice, lambda: choice.save(out))


def _study(args: argparse.Namespace) -> None:
    import jax
    import jax.numpy as jnp

    import jaxgmm as jg
    from jaxgmm._checks import check_name, unknown_name

    methods = args.methods.split(",")
    for one in methods:
        check_name("methods", one, jg.report.METHODS)
    criteria = args.criteria.split(",")
    for one in criteria:
        check_name("criteria", one, (*jg.report.DECIDING, "lrt"))
    # Numbers of a fit are float64, whatever is computed with them.
    jax.config.update("jax_enable_x64", True)
    if not args.no_cache:
        _keep_programs(args)
    options: dict[str, Any] = {"n": args.n or 200}
    if args.fit in jg.report.TRUTHS:
        truth, params = jg.report.truth(args.fit)
    elif Path(args.fit).exists():
        truth, params, n_rows, names = _truth_in(Path(args.fit))
        options = {"n": args.n or n_rows, "feature_names": names}
    else:
        known = unknown_name("TRUTH", args.fit, jg.report.TRUTHS)
        raise ValueError(f"{known}, or a file that fit --save or --json has written")
    dtype = "float32" if args.float32 else "float64"
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    models = []
    if args.select:
        if not isinstance(truth, jg.Mixture):
            raise ValueError(f"--select: needs a mixture, {args.fit} holds {truth!r}")
        prior = None if args.prior == "none" else args.prior
        models = [dataclasses.replace(truth, n_components=k, prior=prior) for k in args.select]
    given = _given(args)
    out = Path(f"{Path(args.fit).stem}_study" if args.out is None else args.out)
    check_folder(out)  # fails before the long part, not after it

    bar = not args.quiet and sys.stderr.isatty()
    label = f"{args.datasets} data sets of {options['n']} rows, compiled first"
    with _stage(args, label, end="\n" if bar else " "):
        found = jg.study(
            truth,
            params,
            n_datasets=args.datasets,
            methods=methods,
            select=models,
            criteria=criteria,
            key=jax.random.key(args.seed),
            n_init=args.restarts,
            given=given,
            path=out / "batches",
            progress=bar,
            **options,
        )
    _report(args, found, lambda: found.save(out))


def _truth_in(path: Path) -> tuple[LatentModel, Any, int, Sequence[str]]:
    """The model in a file that `_fit` wrote, its parameters, and rows and columns of its data."""
    import jaxgmm as jg

    if path.suffix != ".json":
        fit = _loaded(path, jg.Fit)
        return fit.model, fit.params, fit.n_rows, fit.feature_names
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        of, prior = record["model"], record["model"]["prior"]
        model = jg.Mixture(
            jg.Gaussian(of["covariance"]),
            of["n_components"],
            prior=None if prior == "none" else prior,
        )
        arrays = {name: record[name] for name in ("weights", "means", "covariances")}
        return model, model.params(**arrays), record["n_rows"], record["feature_names"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no fit that fit --json has written") from error


def _predict(args: argparse.Namespace) -> None:
    import jax.numpy as jnp
    import numpy as np
    import pandas as pd

    fit = _kept(args)
    data = _load(args, args.data)
    columns = list(data.frame.columns)
    if all(name in columns for name in fit.feature_names):
        columns = list(fit.feature_names)
    elif len(columns) != len(fit.feature_names):
        raise ValueError(
            f"{args.data}: the fit is of the columns {', '.join(fit.feature_names)}, found "
            f"{', '.join(columns)}; choose with --columns"
        )
    named = data.frame[columns].set_axis(list(fit.feature_names), axis="columns")
    x = jnp.asarray(np.asarray(_mixture(fit).read(named)[1], fit.params.weights.dtype))
    probability = np.asarray(fit.model.responsibilities(fit.params, x))
    table = pd.DataFrame(probability, columns=[f"p{k}" for k in range(probability.shape[1])])
    table.insert(0, "component", probability.argmax(axis=1))
    table["log_density"] = np.asarray(fit.model.log_prob(fit.params, x))
    table.to_csv(sys.stdout, index=False)


def _sample(args: argparse.Namespace) -> None:
    import jax

    fit, given = _kept(args), _given(args)
    n = args.n or (100 if given is None else len(given))
    rows = _mixture(fit).sample(fit.params, jax.random.key(args.seed), n, given=given)
    _mixture(fit).table(rows, fit.feature_names).to_csv(sys.stdout, index=False)


def _kept(args: argparse.Namespace) -> Fit:
    """The fit that is asked about."""
    import jax

    import jaxgmm as jg

    jax.config.update("jax_enable_x64", True)
    return _loaded(Path(args.fit), jg.Fit)


def _mixture(fit: Fit) -> Mixture:
    """The model of a kept fit: files without code of the user's hold no other."""
    return cast("Mixture", fit.model)


def _loaded(path: Path, kind: type[Kept]) -> Kept:
    """The fit or the posterior in a file."""
    import jaxgmm as jg

    kept = jg.load(path)
    if not isinstance(kept, kind):
        needed = kind.__name__.lower()
        raise ValueError(f"{path}: holds a {type(kept).__name__}; a {needed} is needed")
    return kept


def _all_structures(x: pd.DataFrame) -> list[str]:
    """mclust's codes; in one dimension there are two."""
    from jaxgmm.model import STRUCTURES, UNIVARIATE

    if x.shape[1] == 1:
        return list(UNIVARIATE)
    return list(dict.fromkeys(structure.code for structure in STRUCTURES.values()))


def _data(args: argparse.Namespace) -> None:
    from importlib import resources

    from jaxgmm import datasets
    from jaxgmm._checks import check_name

    if args.name is None:
        for name in datasets.NAMES:
            data = datasets.load(name)
            rows, columns = data.x.shape
            print(f"{name}: {rows} x {columns} ({', '.join(data.feature_names)})")
            print(textwrap.indent(textwrap.fill(data.description, 92), "    "))
        return
    check_name("NAME", args.name, datasets.NAMES)
    file = resources.files("jaxgmm") / "data" / f"{args.name}.csv"
    sys.stdout.write(file.read_text(encoding="utf-8"))


# -- parts -------------------------------------------------------------------------


def _report(args: argparse.Namespace, said: object, save: Callable[[], Path]) -> None:
    """Say what was found, and save it: the disk may be full, or nobody listen."""
    try:
        print(said, flush=True)
    finally:
        with _stage(args, "writing report"):
            page = save()
    print(f"\nWritten: {page}")


def _prepare(args: argparse.Namespace) -> tuple[pd.DataFrame, Dataset, Mixture]:
    """Data with named columns, whence they are, and the model, checked against each other."""
    import jaxgmm as jg
    from jaxgmm.files import naming_columns

    x, data = _read(args)
    prior = None if args.prior == "none" else args.prior
    model = jg.Mixture(jg.Gaussian(args.covariance), args.k, prior=prior)
    with naming_columns(x):
        model.check_model(*model.check_data(x))
    return x, data, model


def _read(args: argparse.Namespace) -> tuple[pd.DataFrame, Dataset]:
    """Data with named columns in the precision asked for, and whence they are."""
    import jax

    jax.config.update("jax_enable_x64", not args.float32)
    if not args.no_cache:
        _keep_programs(args)
    data = _load(args, args.data)
    return data.frame.astype("float32" if args.float32 else "float64"), data


def _keep_programs(args: argparse.Namespace) -> None:
    """What XLA compiles is there for the next process: JAX's own cache, in the user's folder."""
    import jax
    import platformdirs

    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:  # the user's own
        return
    folder = Path(platformdirs.user_cache_dir("jaxgmm", appauthor=False))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if not args.quiet:
            reason = f"{folder}: {error.strerror}"
            print(
                f"note: compiled programs are not kept for the next time ({reason})",
                file=sys.stderr,
            )
        return
    # What cannot be kept, on a disk that is full, is not needed either.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _given(args: argparse.Namespace) -> pd.DataFrame | None:
    """Rows with what is given beside those that are drawn."""
    if args.given is None:
        return None
    data = _load(args, args.given)
    _say_notes(data)
    return data.frame


def _load(args: argparse.Namespace, name: str) -> Dataset:
    from jaxgmm import datasets
    from jaxgmm._checks import unknown_name

    if name in datasets.NAMES:
        return datasets.load(name, args.columns)
    path = Path(name)
    if not path.exists() and path.name == name and not path.suffix:
        raise ValueError(unknown_name("DATA", name, datasets.NAMES) + ", or a CSV file")
    sep = {"tab": "\t", "\\t": "\t"}.get(args.sep, args.sep)
    return datasets.read_csv(path, args.columns, sep=sep, decimal=args.decimal, header=args.header)


def _announce(args: argparse.Namespace, data: Dataset) -> None:
    """What is computed on."""
    if not args.quiet:
        columns = ", ".join(data.feature_names)
        print(f"{data.name}: {len(data.x)} rows of {columns}", file=sys.stderr)
    _say_notes(data)


def _say_notes(data: Dataset) -> None:
    """What was taken for granted while reading, which is no mere progress."""
    for note in data.notes:
        print(f"{data.name}: {note}", file=sys.stderr)


@contextlib.contextmanager
def _stage(args: argparse.Namespace, label: str, end: str = " ") -> Iterator[None]:
    """Say what begins, and then how long it took."""
    if args.quiet:
        yield
        return
    print(f"{label} ...", end=end, file=sys.stderr, flush=True)
    begin = time.perf_counter()
    try:
        yield
    except BaseException:
        print(file=sys.stderr)
        raise
    print(f"{time.perf_counter() - begin:.1f} s", file=sys.stderr, flush=True)


def _fit_text(fit: Fit) -> str:
    """The fit as tables for a terminal."""
    import numpy as np
    import pandas as pd

    weights, means, covariances = map(
        np.asarray, (fit.params.weights, fit.params.means, fit.params.covariances)
    )
    names = list(fit.feature_names)
    k, d = means.shape
    centres = pd.DataFrame(means, columns=names)
    centres.insert(0, "weight", weights, allow_duplicates=True)
    rows = pd.MultiIndex.from_product([range(k), names])
    spread = pd.DataFrame(covariances.reshape(k * d, d), index=rows, columns=names)
    optima = pd.DataFrame(_optima(fit))
    show = "{:.5g}".format
    return "\n\n".join(
        [
            repr(fit),
            "Weights and means\n" + centres.to_string(float_format=show),
            "Covariances\n" + spread.to_string(float_format=show),
            "What the restarts found\n"
            + optima.to_string(float_format="{:.4f}".format, index=False),
        ]
    )


def _optima(fit: Fit) -> list[dict[str, Any]]:
    """Distinct ends of the restarts, best first, with how many came there."""
    return [
        {
            "log_joint": optimum.log_joint,
            "restarts": len(optimum.starts),
            "status": optimum.status.name.lower(),
            "spurious": optimum.spurious,
        }
        for optimum in fit.optima
    ]


def _fit_record(fit: Fit, args: argparse.Namespace) -> dict[str, Any]:
    """The fit as JSON can hold it."""
    import numpy as np

    return {
        "data": args.data,
        "feature_names": list(fit.feature_names),
        "n_rows": fit.n_rows,
        "model": {"covariance": args.covariance, "n_components": args.k, "prior": args.prior},
        "seed": args.seed,
        "weights": np.asarray(fit.params.weights).tolist(),
        "means": np.asarray(fit.params.means).tolist(),
        "covariances": np.asarray(fit.params.covariances).tolist(),
        "log_likelihood": fit.log_likelihood,
        "log_prior": fit.log_prior,
        "log_joint": fit.log_joint,
        "n_parameters": fit.n_parameters,
        "bic": fit.bic,
        "aic": fit.aic,
        "icl": fit.icl,
        "converged": bool(fit.converged),
        "status": fit.message,
        "n_iter": fit.n_iter,
        "optima": _optima(fit),
    }


if __name__ == "__main__":
    sys.exit(main())
