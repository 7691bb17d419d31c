package main

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

// stdio is all that the program takes from its surroundings.
type stdio struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
}

// app is one invocation: its streams and its global flags.
type app struct {
	stdio
	home   string // of --home; empty = control.DefaultHome
	output string // of -o
	now    func() time.Time
}

const (
	outputTable = "table"
	outputJSON  = "json"
	outputCSV   = "csv" // of balance alone
)

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, s stdio) int {
	a := &app{stdio: s, output: outputTable, now: time.Now}
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	return a.fail(ctx, cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "peerctl",
		Short: "Run work on the machines of people you trust",
		Long: `peerctl drives the peerd or peergate that runs on this machine: it deploys
containers and WASM programs here or on a peer, publishes them, and decides
which peers may do what on this machine.`,
		Example: `  peerctl status
  peerctl deploy hello.wasm --publish
  peerctl deploy myapp:1 --peer bob --port 8080 --publish`,
		Args:              cobra.ArbitraryArgs,
		RunE:              onlySubcommands,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Version:           buildVersion(),
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: groupWork, Title: "Workloads:"},
		&cobra.Group{ID: groupMesh, Title: "Peers:"},
		&cobra.Group{ID: groupNode, Title: "This machine:"},
	)
	root.SetHelpCommandGroupID(groupNode)
	flags := root.PersistentFlags()
	flags.StringVar(&a.home, "home", "", "home `DIR` of the node to talk to (default: $"+control.HomeEnv+", else that of peerd)")
	choiceVar(root, flags, &a.output, "output", "o", "how data is printed: table or json", outputTable, outputJSON)
	for _, c := range commands() {
		cmd := c.build(a)
		cmd.GroupID = c.group
		root.AddCommand(cmd)
	}
	return root
}

// onlySubcommands prints the help of a command that does nothing itself, or says
// what an unknown word was probably meant to be.
func onlySubcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	err := usagef("there is no command %q in %s", args[0], cmd.CommandPath())
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if similar := similarWord(args[0], names); similar != "" {
		return err.hint("did you mean: %s %s", cmd.CommandPath(), similar)
	}
	return err.hint("list the commands with: %s --help", cmd.CommandPath())
}

// client prepares to talk to the node; the caller closes it.
func (a *app) client() (*control.Client, error) {
	home, err := a.homeDir()
	if err != nil {
		return nil, err
	}
	return control.NewClient(home), nil
}

func (a *app) homeDir() (string, error) {
	if a.home != "" {
		return a.home, nil
	}
	return control.DefaultHome()
}

// withClient calls do with a client that is closed afterwards.
func (a *app) withClient(do func(*control.Client) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

func (a *app) json() bool { return a.output == outputJSON }

// printJSON writes v to stdout, as it is and without HTML escapes.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
