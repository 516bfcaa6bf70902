"""PostgreSQL 15, the oldest that is supported: tables, log, rollups, postings, months and archive work there as well.

The tests are those of the other modules; only their server is another one. `make postgres15` runs far more of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing.core.errors import InvalidValue
from billing.embedded.postgres import BINARIES_VARIABLE, Postgres, binaries
from tests.conftest import missing
from tests.databases import make_migrated
from tests.integration.conftest import TEMPLATE
from tests.integration.test_archive import (
    now,
    settings,
    test_given_an_archived_month_when_a_batch_names_it_then_each_message_comes_to_what_it_must,
    test_given_one_event_when_delivered_again_for_400_days_and_across_the_moves_of_its_month_then_it_is_one_row,
    test_the_archive_has_every_column_of_the_history_and_so_has_what_joins_them,
)
from tests.integration.test_archive_moves import (
    test_given_a_concurrent_detachment_that_was_cut_off_when_detached_then_it_is_completed,
    test_given_bounds_that_were_validated_when_a_month_is_moved_then_no_row_of_it_is_read,
    used,
)
from tests.integration.test_migrate import (
    empty,
    test_given_a_migrated_database_when_compared_then_it_is_what_the_metadata_says,
    test_given_an_empty_database_when_migrated_then_every_step_is_named_and_a_second_time_changes_nothing,
)
from tests.integration.test_partitions import (
    test_given_a_later_day_when_made_at_once_by_four_then_each_month_is_made_once,
    test_given_a_migrated_database_then_months_reach_a_year_ahead_without_a_gap_or_a_default,
    test_given_runs_from_every_time_when_written_then_each_lies_in_its_range,
)
from tests.integration.test_usage_log import (
    test_given_an_event_when_written_then_every_field_is_in_its_row,
    test_given_two_settlements_of_one_run_when_written_then_the_first_stands_whole_and_the_other_is_given_back,
)

pytestmark = pytest.mark.integration

VERSIONS = (15, 16, 17)

__all__ = [
    "empty",
    "now",
    "settings",
    "test_given_a_concurrent_detachment_that_was_cut_off_when_detached_then_it_is_completed",
    "test_given_a_later_day_when_made_at_once_by_four_then_each_month_is_made_once",
    "test_given_a_migrated_database_then_months_reach_a_year_ahead_without_a_gap_or_a_default",
    "test_given_a_migrated_database_when_compared_then_it_is_what_the_metadata_says",
    "test_given_an_archived_month_when_a_batch_names_it_then_each_message_comes_to_what_it_must",
    "test_given_an_empty_database_when_migrated_then_every_step_is_named_and_a_second_time_changes_nothing",
    "test_given_an_event_when_written_then_every_field_is_in_its_row",
    "test_given_bounds_that_were_validated_when_a_month_is_moved_then_no_row_of_it_is_read",
    "test_given_one_event_when_delivered_again_for_400_days_and_across_the_moves_of_its_month_then_it_is_one_row",
    "test_given_runs_from_every_time_when_written_then_each_lies_in_its_range",
    "test_given_two_settlements_of_one_run_when_written_then_the_first_stands_whole_and_the_other_is_given_back",
    "test_the_archive_has_every_column_of_the_history_and_so_has_what_joins_them",
    "used",
]


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Run the oldest PostgreSQL that the system's packages have, in place of the session's."""
    found = [Path(f"/usr/lib/postgresql/{version}/bin") for version in VERSIONS]
    there = next((path for path in found if (path / "postgres").is_file()), None)
    if there is None:
        missing("PostgreSQL 15 to 17: not installed (Debian: postgresql-15), so that only version 18 is tested")
    server = Postgres(tmp_path_factory.mktemp("older") / "postgres", fast=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BINARIES_VARIABLE, str(there))
        server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture(scope="session")
def database_template(postgres_server: Postgres) -> str:
    """Make the migrated database on that server."""
    return make_migrated(postgres_server, TEMPLATE)


def test_the_server_is_not_that_of_the_other_tests(session: psycopg.Connection[Any]) -> None:
    """Given this module, then its tests speak to a server of before version 18."""
    [(version,)] = session.execute("SELECT current_setting('server_version_num')::int / 10000").fetchall()
    assert version in VERSIONS


def test_given_a_directory_without_the_programs_when_asked_for_then_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BINARIES_VARIABLE, str(tmp_path))
    with pytest.raises(
        InvalidValue, match=rf"^{BINARIES_VARIABLE}: .*: must be a directory with the programs postgres"
    ):
        binaries()
