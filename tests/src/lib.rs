//! The throwaway machine.
