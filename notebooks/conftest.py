"""For `pytest --nbval notebooks`: progress bars go to stderr and differ from run to run, everything else must agree."""


def pytest_collectstart(collector):
    if getattr(collector, "skip_compare", None):
        collector.skip_compare += ("stderr",)
