package collector

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
)

// passwordHashes is the file that users.conf includes; the containers have it as a secret of this name.
const passwordHashes = "nats-passwords"

func (a *app) natsConfigCommand() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use: "nats-config", Short: "prints the users of a nats-server and their rights, or makes their passwords", Args: cobra.NoArgs,
		Example: "  collector nats-config >users.conf           who may do what, for a server's configuration to include\n" +
			"  collector nats-config --passwords secrets   a password for each user, and the file of their hashes",
		RunE: func(*cobra.Command, []string) error {
			if folder == "" {
				_, err := a.stdout.Write(bus.UsersConf())
				return err
			}
			return a.makePasswords(folder)
		},
	}
	cmd.Flags().StringVar(&folder, "passwords", "", "make the files USER-password, where they are not there yet, and "+passwordHashes+" in this folder")
	return cmd
}

// makePasswords keeps the passwords that are there, so that it can be run again for a new user or for one whose
// file was removed.
func (a *app) makePasswords(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return unwritable(folder, err)
	}
	passwords := map[string]secret.String{}
	for _, p := range bus.Permissions() {
		path := filepath.Join(folder, p.User+"-password")
		text, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			text = []byte(rand.Text())
			if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
				return unwritable(folder, err)
			}
			fmt.Fprintln(a.stdout, "made", path)
		case err != nil:
			return err
		}
		passwords[p.User] = secret.New(strings.TrimRight(string(text), "\r\n"))
	}
	hashes, err := bus.PasswordsConf(passwords, bcrypt.DefaultCost)
	if err != nil {
		return fault.WithHint(err, "remove its file in "+folder+" to have another one made")
	}
	// The nats-server's user has to read it, whoever that is. It holds hashes of long random texts.
	path := filepath.Join(folder, passwordHashes)
	if err := os.WriteFile(path, hashes, 0o644); err != nil {
		return unwritable(folder, err)
	}
	fmt.Fprintln(a.stdout, "made", path)
	return nil
}

func unwritable(folder string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fault.WithHint(err, fmt.Sprintf("make the folder writable for uid %d, for example: chown %d %s", os.Getuid(), os.Getuid(), folder))
	}
	return err
}
