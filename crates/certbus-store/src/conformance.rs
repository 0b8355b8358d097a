//! The suites that every engine passes before it ships: of the inventory and of the tasks. `conformance!(name, make)` makes
//! one test of each behaviour.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "tests that other crates run: each function is a sentence of behaviour, and panics when it is untrue"
)]

mod alerts;
mod glance;
mod inventory;
mod issued;
mod people;
mod tasks;
mod world;

pub use alerts::*;
pub use glance::*;
pub use inventory::*;
pub use issued::*;
pub use people::*;
pub use tasks::*;
pub use world::{Engine, certificate};

/// Makes a module `$name` with a test for each behaviour. `$make` is an async function that gives an [`Engine`].
#[macro_export]
macro_rules! conformance {
    ($name:ident, $make:path) => {
        $crate::conformance!(@each $name, $make,
            an_endpoint_is_registered_once_and_edited_by_one_at_a_time
            many_endpoints_are_put_all_or_none_and_putting_them_twice_changes_nothing
            a_removed_endpoint_takes_its_history_along_and_leaves_the_certificate
            endpoints_are_meant_by_number_name_host_or_place
            invariant_10_every_change_of_an_endpoint_is_in_the_trail
            invariant_7_first_and_last_seen_stay_for_each_node_and_site
            invariant_7_only_looks_of_one_method_are_compared
            invariant_7_polls_that_come_twice_or_late_change_nothing
            invariant_8_a_failed_poll_is_recorded_and_the_last_certificate_stays
            an_unchanged_poll_costs_no_row
            a_node_that_the_name_no_longer_leads_to_is_told_once_and_counts_no_more
            a_name_that_leads_nowhere_fails_and_its_nodes_stay
            an_endpoint_that_becomes_another_begins_anew_and_keeps_what_was
            a_site_that_polls_no_more_counts_no_more
            any_prefix_of_a_label_of_host_name_san_or_issuer_finds_it
            pages_go_on_where_the_last_ended_whatever_is_added_meanwhile
            every_state_lists_its_endpoints_and_no_others
            a_glance_counts_what_the_lists_find_and_by_whose_it_is
            counts_are_what_a_full_count_says_after_everything_that_changes_them
            overdue_is_a_habit_once_there_is_one
            the_moments_of_polls_follow_interval_site_and_pauses
            a_role_is_one_processs_until_its_time_is_over
            what_was_issued_and_what_was_seen_is_one_certificate
            a_projection_moves_its_cursor_with_its_effect_or_not_at_all
            of_two_that_are_for_a_name_the_one_that_is_served_counts
            who_goes_back_to_an_older_version_makes_it_the_current_one
            a_node_that_two_sites_see_is_one_node
            what_is_issued_is_overdue_by_its_plan
            the_endpoint_with_an_older_version_is_found_by_name_and_by_what_it_served
            a_removed_managed_certificate_is_for_no_endpoint
            a_link_lets_one_person_choose_a_password_once_and_within_its_hour
            a_session_ends_when_it_rests_too_long_lasts_too_long_or_the_password_changes
            the_last_admin_who_can_log_in_stays_one
            failed_logins_in_a_row_make_the_next_wait_and_a_good_one_forgives
            a_token_is_known_by_its_hash_until_it_ends_or_is_removed
            an_endpoint_that_expired_is_told_once_and_once_more_when_it_is_renewed
            a_node_that_fails_once_or_twice_makes_no_endpoint_unreachable
            four_nodes_of_one_endpoint_are_one_problem
            another_issuer_is_told_once_and_what_was_seen_before_is_no_news
            an_older_version_is_told_when_it_is_still_seen_an_hour_after_the_offer
            polls_that_nobody_makes_are_told
            managed_certificates_of_another_tenant_are_left_to_their_own
            a_muted_problem_is_stored_and_not_told_and_both_are_in_the_trail
            a_destination_gets_its_messages_in_order_and_one_that_hangs_keeps_its_own
            a_test_that_was_asked_for_goes_to_whatever_destinations_there_are
            invariant_9_nothing_is_muted_that_is_not_there
            a_task_is_one_workers_until_its_lease_ends
            a_killed_workers_task_is_anothers_and_its_late_word_counts_no_more
            a_task_that_fails_waits_twice_as_long_each_time_and_dies_for_a_person_to_see
            two_tasks_of_one_key_do_not_wait_at_once
            of_eight_workers_each_task_is_one_workers
        );
    };
    (@each $name:ident, $make:path, $($test:ident)*) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::conformance::$test(&$make().await).await;
                }
            )*
        }
    };
}
