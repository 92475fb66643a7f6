"""For the notebooks' tests (pytest --nbval), where one line on stderr fails a cell: done before the kernels start."""

import logging
import os


def pytest_configure(config):
    if not (config.getoption("nbval", False) or config.getoption("nbval_lax", False)):
        return
    # In a home folder that cannot be written, matplotlib makes a temporary folder and puts it into MPLCONFIGDIR, which
    # the kernels inherit; the first import of all looks at every font. Both it would say on stderr, in a cell.
    logging.disable(logging.WARNING)
    import matplotlib.font_manager  # noqa: F401

    logging.disable(logging.NOTSET)
    # What a dependency's next version will no longer do is no fault of a notebook.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning,ignore::FutureWarning")
