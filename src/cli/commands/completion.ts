import { Argument, type Command as Program } from "commander";
import type { CommandContext } from "../program.js";

export function define(program: Program, context: CommandContext): void {
  program
    .command("completion")
    .summary("print what makes a shell complete pyro's command line")
    .description("Prints a script for a shell to read. With it, Tab completes commands, flags, environments and the ids of VMs.")
    .addArgument(new Argument("<shell>", "which shell").choices(Object.keys(scripts)))
    .addHelpText(
      "after",
      `
Examples:
  source <(pyro completion bash)                                            # in ~/.bashrc
  source <(pyro completion zsh)                                             # in ~/.zshrc, behind compinit
  pyro completion fish >~/.config/fish/completions/pyro.fish`,
    )
    .action((shell: keyof typeof scripts) => context.output.result(scripts[shell]));
}

/** Each hands the words up to the cursor to \`pyro __complete\` and gets a candidate a line, with a tab before what it is. */
const scripts = {
  // Bash splits words at the colon of debian:12, too, and replaces the last piece only. Bash 4.4 is from 2016.
  bash: `# pyro's command line in bash
_pyro() {
  local line=\${COMP_LINE:0:COMP_POINT} words=() index piece blank word
  for ((index = 0; index <= COMP_CWORD; index++)); do
    piece=\${COMP_WORDS[index]} blank=\${line%%[![:blank:]]*}
    line=\${line#"$blank"}
    ((index < COMP_CWORD)) || piece=$line
    if ((index == 0)) || [[ -n $blank ]]; then words+=("$piece"); else words[-1]+=$piece; fi
    line=\${line#"$piece"}
  done
  local last=\${words[-1]}
  mapfile -t COMPREPLY < <("\${words[0]}" __complete "\${words[@]:1}" 2>/dev/null)
  COMPREPLY=("\${COMPREPLY[@]%%$'\\t'*}")
  if [[ $COMP_WORDBREAKS == *:* && $last == *:* ]]; then COMPREPLY=("\${COMPREPLY[@]#"\${last%:*}:"}"); fi
}
complete -o nosort -F _pyro pyro
`,
  zsh: `#compdef pyro
# pyro's command line in zsh
_pyro() {
  local line
  local -a lines candidates
  lines=("\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
  for line in $lines; do
    candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done
  (( $#candidates )) && _describe -V pyro candidates
}
if [[ $funcstack[1] == _pyro ]]; then _pyro "$@"; else compdef _pyro pyro; fi
`,
  fish: `# pyro's command line in fish
function __pyro_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] __complete $words[2..] "$current" 2>/dev/null
end
complete -c pyro -f -k -a '(__pyro_complete)'
`,
} as const;
