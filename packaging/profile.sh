# People who have a T3 Code server here get the t3 that it runs: another version's would change the database under the
# server. For everybody else, and without the package, nothing is changed. See t3pin-t3(1).
if [ -x /usr/lib/t3pin/bin/t3 ] && [ -L "/var/lib/t3pin/bindings/${USER:-$(id -un)}" ]; then
    case ":${PATH}:" in
    *:/usr/lib/t3pin/bin:*) ;;
    *) PATH="/usr/lib/t3pin/bin:${PATH}" ;;
    esac
fi
