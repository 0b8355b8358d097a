//! A file that is of a newer program, damaged, no database, on a full disk.
