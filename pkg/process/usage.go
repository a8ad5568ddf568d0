package process

import (
	"fmt"

	"github.com/spf13/cobra"

	"defenderiot/pkg/fault"
)

// explainUsage makes the errors of a mistyped command line say where what is allowed stands, for cmd and all
// commands under it.
func explainUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(usageError)
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, given []string) error {
			err := args(cmd, given)
			if err == nil {
				// Asked here, since the library's own error would come without a hint.
				err = cmd.ValidateRequiredFlags()
			}
			return usageError(cmd, err)
		}
	}
	for _, c := range cmd.Commands() {
		explainUsage(c)
	}
}

func usageError(cmd *cobra.Command, err error) error {
	return fault.WithHint(err, fmt.Sprintf("`%s --help` says what is allowed", cmd.CommandPath()))
}
