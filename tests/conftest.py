def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left to `tests/run`; continuous integration runs `tests/run --fast`")
