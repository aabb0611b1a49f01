import java.io.File;
import java.util.LinkedHashSet;
import java.util.Set;
import org.verapdf.gf.foundry.VeraGreenfieldFoundryProvider;
import org.verapdf.pdfa.Foundries;
import org.verapdf.pdfa.PDFAParser;
import org.verapdf.pdfa.PDFAValidator;
import org.verapdf.pdfa.flavours.PDFAFlavour;
import org.verapdf.pdfa.results.TestAssertion;

/** For each file one line: "conforms", or the clauses of ISO 19005-2, level U, that it does not keep. */
public class Conforms {
    public static void main(String[] files) throws Exception {
        VeraGreenfieldFoundryProvider.initialise();
        for (String file : files) {
            try (PDFAParser parser = Foundries.defaultInstance().createParser(new File(file), PDFAFlavour.PDFA_2_U);
                    PDFAValidator validator = Foundries.defaultInstance().createValidator(PDFAFlavour.PDFA_2_U, false)) {
                Set<String> broken = new LinkedHashSet<>();
                for (TestAssertion one : validator.validate(parser).getTestAssertions()) {
                    if (one.getStatus() == TestAssertion.Status.FAILED) {
                        broken.add(one.getRuleId().getClause() + "-" + one.getRuleId().getTestNumber());
                    }
                }
                System.out.println(broken.isEmpty() ? "conforms" : String.join(" ", broken));
            }
        }
    }
}
