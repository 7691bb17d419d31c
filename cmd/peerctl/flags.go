package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// value is a flag that is parsed at once, so that a mistake is met before anything
// is done, together with what would have been accepted.
type value[T any] struct {
	to    *T
	parse func(string) (T, error)
	kind  string
	text  string
}

func (v *value[T]) Set(s string) (err error) {
	*v.to, err = v.parse(s)
	v.text = s
	return err
}

func (v *value[T]) String() string { return v.text }
func (v *value[T]) Type() string   { return v.kind }

func sizeVar(flags *pflag.FlagSet, to *int64, name, usage string) {
	flags.Var(&value[int64]{to: to, parse: parseSize, kind: "SIZE"}, name, usage)
}

func cpusVar(flags *pflag.FlagSet, to *int64, name, usage string) {
	flags.Var(&value[int64]{to: to, parse: parseCPUs, kind: "CORES"}, name, usage)
}

func durationVar(flags *pflag.FlagSet, to *time.Duration, name, usage string) {
	flags.Var(&value[time.Duration]{to: to, parse: parseDuration, kind: "DURATION"}, name, usage)
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, errors.New("durations look like 500ms, 30s or 5m")
	}
	return d, nil
}

func portVar(flags *pflag.FlagSet, to *uint16, name, usage string) {
	flags.Var(&value[uint16]{to: to, parse: parsePort, kind: "PORT"}, name, usage)
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("ports are numbers from 1 to 65535")
	}
	return uint16(n), nil
}

func countVar(flags *pflag.FlagSet, to *int, name, shorthand, usage string) {
	flags.VarP(&value[int]{to: to, parse: parseCount, kind: "N"}, name, shorthand, usage)
}

func parseCount(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, errors.New("that is not a whole number from 0 up")
	}
	return int(n), nil
}

// choiceVar is a flag that takes one of a few words and completes them.
func choiceVar[S ~string](cmd *cobra.Command, flags *pflag.FlagSet, to *S, name, shorthand, usage string, words ...S) {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	parse := func(s string) (S, error) {
		if !slices.Contains(list, s) {
			return "", fmt.Errorf("choose one of %s", strings.Join(list, ", "))
		}
		return S(s), nil
	}
	flags.VarP(&value[S]{to: to, parse: parse, kind: "WORD", text: string(*to)}, name, shorthand, usage)
	completeFlag(cmd, name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
}

// flagError turns what the flag parser says into our own words.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var valueless *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &unknown):
		return unknownFlag(cmd, unknown)
	case errors.As(err, &valueless):
		f := valueless.GetFlag()
		return usagef("--%s needs a value (%s)", f.Name, f.Value.Type()).hint("see: %s --help", cmd.CommandPath())
	case errors.As(err, &invalid):
		return usagef("--%s %s: %s", invalid.GetFlag().Name, invalid.GetValue(), root(err)).
			hint("see: %s --help", cmd.CommandPath())
	}
	return usagef("%s", err).hint("see: %s --help", cmd.CommandPath())
}

func unknownFlag(cmd *cobra.Command, unknown *pflag.NotExistError) error {
	name := "--" + unknown.GetSpecifiedName()
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		name = "-" + short
	}
	err := usagef("%s has no flag %s", cmd.CommandPath(), name)
	if similar := similarFlag(cmd, unknown.GetSpecifiedName()); similar != "" {
		return err.hint("did you mean --%s?", similar)
	}
	if cmd.Name() == "run" || cmd.Name() == "deploy" {
		return err.hint("the program's own flags go after --, as in: %s TARGET -- %s", cmd.CommandPath(), name)
	}
	return err.hint("see: %s --help", cmd.CommandPath())
}

// similarFlag finds the flag that was probably meant.
func similarFlag(cmd *cobra.Command, name string) string {
	if len(name) < 2 {
		return ""
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return similarWord(name, names)
}

// similarWord finds the word that typed begins, or is at most two slips away from;
// "" if there is none.
func similarWord(typed string, words []string) string {
	best, least := "", 3
	for _, w := range words {
		d := distance(typed, w)
		if strings.HasPrefix(w, typed) {
			d = 1
		}
		if d < least && d < len(typed) {
			best, least = w, d
		}
	}
	return best
}

// distance is the number of insertions, deletions and changes between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// takes is how many words a command wants, by the names of its help text. The last
// name may end in "…": one or more.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		see := func(e usageError) error { return e.hint("see: %s --help", cmd.CommandPath()) }
		if len(args) < len(names) {
			return see(usagef("%s needs %s", cmd.CommandPath(), strings.TrimSuffix(names[len(args)], "…")))
		}
		many := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "…")
		if len(args) > len(names) && !many {
			return see(usagef("%s takes no argument %q", cmd.CommandPath(), args[len(names)]))
		}
		for i, arg := range args {
			if arg == "" {
				return see(usagef("%s is empty", strings.TrimSuffix(names[min(i, len(names)-1)], "…")))
			}
		}
		return nil
	}
}
