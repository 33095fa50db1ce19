//! The client side: all that `cli` knows of the agent.
