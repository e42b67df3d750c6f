//! Binds the context sources that need the outside world.
