import pytest

pytest.register_assert_rewrite("tests.support")  # whose failures then show values, too
