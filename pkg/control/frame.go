package control

// UpgradeJob is the protocol name of POST /v1/run after the upgrade. What follows
// are frames (package frame) of the types below, both ways.
const UpgradeJob = "peercompute-job"

// The frame types of a job. An empty FrameStdin means end of input.
const (
	FrameStdin  byte = 0
	FrameStdout byte = 1
	FrameStderr byte = 2
	FrameExit   byte = 3 // JSON RunResult; the last frame
	FrameError  byte = 4 // JSON Error; the last frame
	FrameBegun  byte = 5 // JSON Started; the first frame
)
