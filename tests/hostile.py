"""Settings of a user's machine that must change nothing: files, variables, start-up.

`give_settings` writes a home, a working folder and modules full of them, and returns
the variables that lead there. What they would do is seen at once: black figures, one
decimal, a marked name in `builtins`, a notebook that fails.
"""

from pathlib import Path

_RC = "axes.facecolor: black\ntext.usetex: True\nsavefig.bbox: tight\nfigure.dpi: 40\n"
_MARK = "import builtins\nbuiltins.hostile_{name} = 1\n"
_STARTUP = (
    "import pandas as pd\npd.set_option('display.precision', 1)\n"
    "pd.set_option('display.max_rows', 3)\nhostile = 1\n"
)
_CONFIG = (
    "c = get_config()\nc.InteractiveShellApp.exec_lines = ['hostile_line = 1']\n"
    "c.InlineBackend.figure_formats = {'svg'}\nc.InlineBackend.rc = {'font.size': 3}\n"
    "c.InteractiveShell.ast_node_interactivity = 'none'\n"
)
_KERNEL = '{"argv": ["/bin/false"], "display_name": "Foreign", "language": "R"}'


def give_settings(place: Path) -> dict[str, str]:
    """Write hostile settings below `place`; return the variables that name them."""
    files = {
        "matplotlibrc": _RC,
        ".config/matplotlib/matplotlibrc": _RC,
        ".matplotlib/matplotlibrc": _RC,
        ".ipython/profile_default/startup/00.py": _STARTUP,
        ".ipython/profile_default/ipython_config.py": _CONFIG,
        ".ipython/profile_default/ipython_kernel_config.py": _CONFIG,
        ".jupyter/jupyter_config.py": "raise SystemExit(3)\n",
        ".local/share/jupyter/kernels/python3/kernel.json": _KERNEL,
        ".config/dask/dask.yaml": "distributed: {scheduler: {preload: [nowhere]}}\n",
        ".gitconfig": "[core]\n  abbrev = 7\n",
        "modules/sitecustomize.py": _MARK.format(name="site"),
        "modules/usercustomize.py": _MARK.format(name="user"),
        "modules/sklearn.py": "raise SystemExit('the wrong sklearn')\n",
        "startup.py": _MARK.format(name="startup"),
    }
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    here, modules = str(place), str(place / "modules")
    return {
        "HOME": here,
        "XDG_CONFIG_HOME": f"{here}/.config",
        "MATPLOTLIBRC": f"{here}/matplotlibrc",
        "MPLCONFIGDIR": f"{here}/.matplotlib",
        "MPLBACKEND": "template",
        "IPYTHONDIR": f"{here}/.ipython",
        "JUPYTER_CONFIG_DIR": f"{here}/.jupyter",
        "JUPYTER_PATH": f"{here}/.local/share/jupyter",
        "JUPYTER_RUNTIME_DIR": f"{here}/{'long/' * 30}",
        "PYTHONPATH": modules,
        "PYTHONSTARTUP": f"{here}/startup.py",
        "PYTHONHASHSEED": "7",
        "LANG": "tr_TR.ISO8859-9",
        "LC_ALL": "POSIX",
        "TZ": "Asia/Kathmandu",
        "COLUMNS": "31",
        "LINES": "7",
        "NO_COLOR": "1",
        "FORCE_COLOR": "1",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": "AVX2",
        "TORCH_LOGS": "+all",
        "TORCHDYNAMO_VERBOSE": "1",
        "TORCH_HOME": here,
        "PYTORCH_JIT": "0",
        "HF_HOME": here,
        "HF_ENDPOINT": "http://elsewhere:9",
        "HF_TOKEN": "x",
        "TRANSFORMERS_VERBOSITY": "debug",
        "DIFFUSERS_VERBOSITY": "debug",
        "DASK_CONFIG": f"{here}/.config/dask",
        "DASK_DISTRIBUTED__WORKER__PRELOAD": "nowhere",
        "GIT_DIR": here,
        "GIT_WORK_TREE": here,
    }
