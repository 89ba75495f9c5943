//! One suite, three engines: SQLite, PostgreSQL and the simulated database. What only one of them can do stands in a file of its own.

mod engines;
mod held;
mod postgres;
#[path = "../../../../tests/src/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of other crates, which use the rest")]
mod servers;
mod simulated;
mod sqlite;
mod suite;

/// Makes one test of every function of the suite, for the engine that `$fresh` opens.
macro_rules! conformance {
    ($fresh:expr, #[$test:meta]; $($suite:ident: $($case:ident),+;)+) => {$(
        mod $suite {
            $(
                #[$test]
                async fn $case() {
                    let fresh = $fresh().await;
                    crate::suite::$suite::$case(fresh.db()).await;
                }
            )+
        }
    )+};
}

/// The whole suite for one engine.
macro_rules! conformance_of {
    ($fresh:expr, #[$test:meta]) => {
        mod suite {
            crate::conformance! {
                $fresh, #[$test];
                sql: values_come_back_as_they_went_in, a_missing_row_is_none, a_wrong_column_is_named, changes_are_counted,
                    ok_commits_and_err_rolls_back, readers_see_only_what_is_committed, a_conflict_names_its_index,
                    a_refused_row_names_its_rule, a_failed_statement_ends_its_transaction, an_expected_conflict_goes_on,
                    no_update_is_lost, unchecked_updates_queue_up, a_caller_that_goes_away_leaves_nothing,
                    a_handle_that_is_given_away_cannot_commit, too_long_a_list_is_refused, nothing_is_asked_uncounted;
                faults: a_failing_statement_leaves_nothing, a_torn_statement_leaves_nothing, a_hanging_statement_ends,
                    a_transaction_that_cannot_begin_says_so, a_commit_that_fails_for_certain, a_commit_lost_before_it_arrived,
                    a_commit_whose_answer_is_lost;
                outbox: numbers_are_dense_and_in_order, a_rollback_takes_its_number_back, streams_are_apart,
                    concurrent_appenders_leave_no_gap_behind_a_reader, a_commit_wakes_and_a_rollback_does_not, old_events_are_trimmed;
                lease: due_rows_go_to_one_worker_each, a_late_worker_finds_its_fence_old, a_lease_is_renewed_and_released,
                    one_row_is_claimed_by_key, the_longest_due_go_first;
                many: values_come_back_as_they_went_in, rows_are_counted_and_expected_conflicts_go_on,
                    one_row_that_is_refused_fails_all, no_rows_ask_nothing_and_other_shapes_are_refused,
                    events_of_a_batch_are_dense_and_in_order;
                migrate: each_runs_once, a_newer_schema_is_refused, a_changed_file_is_refused, a_missing_file_is_refused,
                    a_failing_one_leaves_nothing, two_processes_migrate_at_once;
            }
        }
    };
}
pub(crate) use {conformance, conformance_of};
