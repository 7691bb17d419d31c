// Command peerctl drives the peerd or peergate of this machine through the unix
// socket in its home directory. It holds no key and opens no other connection:
// whatever it shows or changes, the node behind the socket decided.
//
// Data goes to stdout, everything else to stderr. It exits 0 on success, 1 on
// failure, 2 on a mistake in the command line and 130 when interrupted;
// "peerctl run" passes on the job's own status, and 125 if the job was not run.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The groups of the help text.
const (
	groupWork = "work"
	groupMesh = "mesh"
	groupNode = "node"
)

// commands is all that peerctl can do, in the order of its help text.
func commands() []command {
	return []command{
		{groupWork, cmdDeploy},
		{groupWork, cmdExplain},
		{groupWork, cmdRun},
		{groupWork, cmdJob},
		{groupWork, cmdCron},
		{groupWork, cmdReceipts},
		{groupWork, cmdVerify},
		{groupWork, cmdBalance},
		{groupWork, cmdImage},
		{groupWork, cmdVolume},
		{groupWork, cmdPs},
		{groupWork, cmdInspect},
		{groupWork, cmdLogs},
		{groupWork, cmdStats},
		{groupWork, cmdTop},
		{groupWork, cmdExec},
		{groupWork, cmdCp},
		{groupWork, cmdSecret},
		{groupWork, cmdPortForward},
		{groupWork, cmdHistory},
		{groupWork, cmdRollback},
		{groupWork, cmdRestart},
		{groupWork, cmdStop},
		{groupWork, cmdRm},
		{groupWork, cmdDown},
		{groupWork, cmdPublish},
		{groupWork, cmdUnpublish},
		{groupMesh, cmdPeers},
		{groupMesh, cmdLend},
		{groupMesh, cmdPause},
		{groupMesh, cmdResume},
		{groupMesh, cmdLockdown},
		{groupMesh, cmdUnlock},
		{groupNode, cmdWhoami},
		{groupNode, cmdStatus},
		{groupNode, cmdDoctor},
		{groupNode, cmdAlarms},
		{groupNode, cmdIdentity},
		{groupNode, cmdEvents},
		{groupNode, cmdAudit},
		{groupNode, cmdVersion},
		{groupNode, cmdCompletion},
	}
}

type command struct {
	group string
	build func(*app) *cobra.Command
}

func main() { os.Exit(runMain()) }

func runMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// After the first signal the default returns, so that a second one ends a
	// program that hangs while it cleans up.
	defer context.AfterFunc(ctx, stop)()
	cobra.EnableCommandSorting = false // the table above is in the order that reads best
	return run(ctx, os.Args[1:], stdio{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv})
}
