"""What importing the package does to a fresh process: nothing."""

import subprocess
import sys

import pytest


def _fresh(code):
    """What a process said on stderr."""
    run = [sys.executable, "-c", code]
    return subprocess.run(run, check=True, timeout=120, stderr=subprocess.PIPE, text=True).stderr


def test_import_creates_no_arrays_and_leaves_the_precision_alone():
    _fresh(
        "import jax\n"
        "before = jax.config.jax_enable_x64\n"
        "import jaxgmm\n"
        "assert jax.config.jax_enable_x64 == before == False\n"
        "assert jax.live_arrays() == [], jax.live_arrays()\n"
    )


@pytest.mark.parametrize("x64", [False, True])
def test_results_follow_the_precision_that_the_user_chose(x64):
    _fresh(
        "import jax, numpy as np\n"
        f"jax.config.update('jax_enable_x64', {x64})\n"
        "import jaxgmm as jg\n"
        "model = jg.Mixture(jg.Gaussian('diag'), 1)\n"
        "fit = jg.fit(model, np.array([[0.0], [1.0], [3.0]]), start=np.ones((3, 1)))\n"
        f"assert fit.params.means.dtype == ('float64' if {x64} else 'float32')\n"
        "assert fit.converged\n"
    )


def test_scikit_learn_is_needed_by_its_door_only():
    _fresh(
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        "import jaxgmm\n"
        "try:\n"
        "    import jaxgmm.sklearn\n"
        "except ImportError as error:\n"
        "    assert 'pip install \"jaxgmm[sklearn]\"' in str(error)\n"
        "else:\n"
        "    raise AssertionError('imported')\n"
    )


@pytest.mark.turn
def test_a_notebook_without_widgets_hears_nothing_of_them():
    kernel = (
        "import sys, types\n"
        "sys.modules['ipykernel.zmqshell'] = types.ModuleType('zmqshell')\n"
        "sys.modules['IPython'] = types.ModuleType('IPython')\n"
        "sys.modules['IPython'].get_ipython = object\n"
        "sys.modules['ipywidgets'] = None\n"
    )
    assert "IProgress not found" in _fresh(kernel + "import tqdm.auto")
    assert "IProgress not found" not in _fresh(kernel + "import jaxgmm")
