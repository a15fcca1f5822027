"""Files <-> the frozen `Capture`, one layer's recorded frame attention."""
