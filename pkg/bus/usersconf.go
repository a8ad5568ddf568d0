package bus

import (
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"defenderiot/pkg/secret"
)

// UsersConf is the part of a nats-server's configuration that declares the account and its users, from
// [Permissions]. Their passwords are variables, [PasswordVariable], of another file, which [PasswordsConf] makes: it
// is included here, because a nats-server's variables are not seen in the files that are included after them.
func UsersConf() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Who may do what on the bus. Generated from pkg/bus/permission.go; `collector nats-config` prints it too.\n"+
		"# The included file sets a variable for each user: its password or, better, the bcrypt hash of it.\n"+
		"include \"../../run/secrets/nats-passwords\"\n\naccounts {\n  %s {\n    jetstream: enabled\n    users: [\n", Account)
	for _, p := range Permissions() {
		fmt.Fprintf(&b, "      {\n        user: %q, password: $%s\n        permissions {\n", p.User, PasswordVariable(p.User))
		list(&b, "publish", p.Publish)
		list(&b, "subscribe", p.Subscribe)
		b.WriteString("        }\n      }\n")
	}
	b.WriteString("    ]\n  }\n}\n")
	return []byte(b.String())
}

func list(b *strings.Builder, what string, subjects []string) {
	fmt.Fprintf(b, "          %s: [\n", what)
	for _, s := range subjects {
		fmt.Fprintf(b, "            %q\n", s)
	}
	b.WriteString("          ]\n")
}

// PasswordVariable is the name of the variable that holds the user's password in a server's configuration.
func PasswordVariable(user string) string { return "PASSWORD_" + strings.ToUpper(user) }

// PasswordsConf sets the variable of each user to the bcrypt hash of its password: it is no secret in itself,
// but whoever has it can try passwords. cost is what one try takes, see [bcrypt.DefaultCost]. A password that [bcrypt]
// does not take, longer than 72 bytes, is an error.
func PasswordsConf(passwords map[string]secret.String, cost int) ([]byte, error) {
	var b strings.Builder
	b.WriteString("# The hashes of the passwords, for users.conf. Made by `collector nats-config --passwords`.\n")
	for _, p := range Permissions() {
		password, ok := passwords[p.User]
		if !ok || password.IsZero() {
			return nil, fmt.Errorf("user %s has no password", p.User)
		}
		hash, err := bcrypt.GenerateFromPassword([]byte(password.Reveal()), cost)
		if err != nil {
			return nil, fmt.Errorf("password of user %s: %w", p.User, err)
		}
		fmt.Fprintf(&b, "%s: %q\n", PasswordVariable(p.User), hash)
	}
	return []byte(b.String()), nil
}
