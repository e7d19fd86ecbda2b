//! The fleet simulator: agents good and bad that speak OpAMP over real sockets.
