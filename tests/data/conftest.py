from tests.fine_tuning import reload_in_process  # noqa: F401 - a fixture for all tests here
